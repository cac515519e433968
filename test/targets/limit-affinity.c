/*
 * Purpose: shows a limit of CRIU 4.2: the CPU affinity of a thread is not in the images, it comes back as CRIU's own.
 */
#define _GNU_SOURCE
#include <sched.h>

#include "common.h"

int main(int argc, char **argv) {
  target_begin(argc, argv, "CPU affinity", NULL);
  cpu_set_t cpus, now;
  CPU_ZERO(&cpus);
  CPU_SET(0, &cpus);
  if (sched_getaffinity(0, sizeof now, &now) != 0 || CPU_COUNT(&now) < 2) target_skip("one CPU only");
  if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) target_die("affinity");
  target_ready();
  while (target_wait()) {
    CPU_ZERO(&now);
    if (sched_getaffinity(0, sizeof now, &now) != 0 || !CPU_EQUAL(&now, &cpus))
      target_bad("%d CPUs instead of 1", CPU_COUNT(&now));
    target_ok("1 CPU");
  }
  return 0;
}
