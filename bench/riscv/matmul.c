/* A product of matrices of single-precision numbers, row by row: what compilers turn into vectors where they may. */
#include "check.h"

enum { SIDE = 384, ROUNDS = 12 };

static float a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];

__attribute__((noinline)) static void multiply(void)
{
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++)
            c[i][j] = 0;
        for (int k = 0; k < SIDE; k++) {
            float factor = a[i][k];
            for (int j = 0; j < SIDE; j++)
                c[i][j] += factor * b[k][j];
        }
    }
}

int main(void)
{
    uint64_t random = 3, sum = 0;
    int right = 1;
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            a[i][j] = (float)(next_random(&random) % 1000) / 999;
            b[i][j] = (float)(next_random(&random) % 1000) / 777;
        }
    for (int round = 0; round < ROUNDS; round++) {
        a[round][round] += 1;
        multiply();
        for (int i = 0; i < SIDE; i++)
            sum = mix(sum, bits(c[i][(i + round) % SIDE]));
    }
    for (int i = 0; i < SIDE; i += 31) {
        double better = 0;
        for (int k = 0; k < SIDE; k++)
            better += (double)a[i][k] * b[k][i];
        right &= c[i][i] > better * 0.9999 && c[i][i] < better * 1.0001;
    }
    return finish("matmul", sum, right);
}
