/*
 * Purpose: shows a limit of CRIU 4.2: a periodic timerfd that has expired and was not read never ticks again.
 */
#define _GNU_SOURCE
#include <sys/timerfd.h>
#include <unistd.h>

#include "common.h"

int main(int argc, char **argv) {
  target_begin(argc, argv, "a periodic timerfd that has expired", NULL);
  struct itimerspec often = {{0, 10000000}, {0, 10000000}};
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  if (timer < 0 || timerfd_settime(timer, 0, &often, NULL) != 0) target_die("timerfd");
  target_ready();
  while (target_wait()) {
    uint64_t expirations = 0;
    for (int i = 0; i < 2; i++)
      if (!target_readable(timer, 3000) || read(timer, &expirations, sizeof expirations) != sizeof expirations)
        target_bad("it does not tick any more");
    usleep(30000);
    target_ok("it ticks");
  }
  return 0;
}
