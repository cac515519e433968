/*
 * Purpose: shows a limit of CRIU 4.2: the timer slack of a thread (prctl) comes back as the default.
 */
#define _GNU_SOURCE
#include <sys/prctl.h>

#include "common.h"

int main(int argc, char **argv) {
  target_begin(argc, argv, "timer slack", NULL);
  prctl(PR_SET_TIMERSLACK, 123456UL);
  target_ready();
  while (target_wait()) {
    int slack = prctl(PR_GET_TIMERSLACK);
    if (slack != 123456) target_bad("%d ns instead of 123456", slack);
    target_ok("123456 ns");
  }
  return 0;
}
