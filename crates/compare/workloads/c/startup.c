/* Nothing: what is left is the start and the end of a program. */
#include "rt.h"

void startup_prepare(u32 amount) { (void)amount; }
u64 startup_work(u32 amount) { return mix(1, amount); }
