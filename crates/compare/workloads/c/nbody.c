/* Five bodies under gravity: double-precision arithmetic in which each operation waits for the one before. */
#include "rt.h"

enum { BODIES = 5 };

struct body {
    f64 x, y, z, vx, vy, vz, mass;
};

static struct body bodies[BODIES];

static void place(void)
{
    /* A heavy one in the middle and light ones on circles about it, each at an angle with a rational sine and cosine. */
    bodies[0] = (struct body){0, 0, 0, 0, 0, 0, 40};
    for (int i = 1; i < BODIES; i++) {
        f64 t = 0.3 * i, c = (1 - t * t) / (1 + t * t), s = 2 * t / (1 + t * t), r = 3.0 * i, v = __builtin_sqrt(40 / r);
        bodies[i] = (struct body){r * c, r * s, 0.1 * i, -s * v, c * v, 0, 0.01 * i};
    }
}

static void advance(f64 dt)
{
    for (int i = 0; i < BODIES; i++) {
        struct body *a = &bodies[i];
        for (int j = i + 1; j < BODIES; j++) {
            struct body *b = &bodies[j];
            f64 dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
            f64 d2 = dx * dx + dy * dy + dz * dz;
            f64 pull = dt / (d2 * __builtin_sqrt(d2));
            f64 ma = a->mass * pull, mb = b->mass * pull;
            a->vx -= dx * mb, a->vy -= dy * mb, a->vz -= dz * mb;
            b->vx += dx * ma, b->vy += dy * ma, b->vz += dz * ma;
        }
    }
    for (int i = 0; i < BODIES; i++) {
        struct body *a = &bodies[i];
        a->x += dt * a->vx, a->y += dt * a->vy, a->z += dt * a->vz;
    }
}

void nbody_prepare(u32 amount) { (void)amount; }

u64 nbody_work(u32 amount)
{
    u64 sum = 1;
    place();
    for (u32 i = 0; i < amount; i++)
        advance(0.001);
    for (int i = 0; i < BODIES; i++)
        sum = mix(mix(mix(sum, bits(bodies[i].x)), bits(bodies[i].y)), bits(bodies[i].z));
    return sum;
}
