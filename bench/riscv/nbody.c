/* Bodies under gravity: double precision additions, multiplications, divisions and square roots that wait for each other. */
#include <math.h>

#include "check.h"

enum { BODIES = 5, STEPS = 8000000 };

struct body {
    double x[3], v[3], mass;
};

static struct body bodies[BODIES];

static double energy(void)
{
    double sum = 0;
    for (int i = 0; i < BODIES; i++) {
        const struct body *a = &bodies[i];
        sum += 0.5 * a->mass * (a->v[0] * a->v[0] + a->v[1] * a->v[1] + a->v[2] * a->v[2]);
        for (int j = i + 1; j < BODIES; j++) {
            double d2 = 0;
            for (int k = 0; k < 3; k++)
                d2 += (a->x[k] - bodies[j].x[k]) * (a->x[k] - bodies[j].x[k]);
            sum -= a->mass * bodies[j].mass / sqrt(d2);
        }
    }
    return sum;
}

static void advance(double dt)
{
    for (int i = 0; i < BODIES; i++) {
        struct body *a = &bodies[i];
        for (int j = i + 1; j < BODIES; j++) {
            struct body *b = &bodies[j];
            double dx = a->x[0] - b->x[0], dy = a->x[1] - b->x[1], dz = a->x[2] - b->x[2];
            double d2 = dx * dx + dy * dy + dz * dz;
            double pull = dt / (d2 * sqrt(d2));
            double ma = a->mass * pull, mb = b->mass * pull;
            a->v[0] -= dx * mb, a->v[1] -= dy * mb, a->v[2] -= dz * mb;
            b->v[0] += dx * ma, b->v[1] += dy * ma, b->v[2] += dz * ma;
        }
    }
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            bodies[i].x[k] += dt * bodies[i].v[k];
}

int main(void)
{
    /* A heavy one in the middle and light ones on circles about it. */
    bodies[0].mass = 40;
    for (int i = 1; i < BODIES; i++) {
        double r = 3.0 * i, angle = 0.7 * i;
        double c = 1 - angle * angle / 2 + angle * angle * angle * angle / 24, s = sqrt(c > 1 || c < -1 ? 0 : 1 - c * c);
        bodies[i] = (struct body){{r * c, r * s, 0.1 * i}, {-s * sqrt(40 / r), c * sqrt(40 / r), 0}, 0.01 * i};
    }
    double before = energy();
    for (int i = 0; i < STEPS; i++)
        advance(0.001);
    double after = energy();
    uint64_t sum = bits(after);
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            sum = mix(sum, bits(bodies[i].x[k]));
    return finish("nbody", sum, after == after && before < 0);
}
