/*
 * Purpose: timers go on: setitimer, POSIX timers, timerfd; periodic ones tick, distant ones keep their remainder.
 * A timerfd that has expired and was not read is limit-timerfd.c's matter.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

static volatile sig_atomic_t interval_ticks;
static volatile sig_atomic_t posix_ticks;
static volatile sig_atomic_t posix_value;

static void on_alarm(int number) {
  (void)number;
  interval_ticks++;
}

static void on_posix_timer(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  posix_ticks++;
  posix_value = info->si_value.sival_int;
}

static void await_tick(volatile sig_atomic_t *ticks, const char *what) {
  sig_atomic_t before = *ticks;
  uint64_t end = target_now() + 5000000000ULL;
  while (*ticks == before && target_now() < end) usleep(2000);
  if (*ticks == before) target_bad("%s does not tick any more", what);
}

static void check_left(const char *what, long seconds, long interval, long expected_interval) {
  if (seconds < 3000 || seconds > 3600) target_bad("%s: %ld s left of 3600", what, seconds);
  if (interval != expected_interval) target_bad("%s: interval %ld instead of %ld", what, interval, expected_interval);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "setitimer, POSIX timers, timerfd", NULL);
  struct sigaction action = {.sa_sigaction = on_posix_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGRTMIN + 1, &action, NULL);
  signal(SIGALRM, on_alarm);
  signal(SIGVTALRM, SIG_IGN);
  signal(SIGPROF, SIG_IGN);

  struct itimerval often = {{0, 50000}, {0, 50000}}, far = {{7200, 0}, {3600, 0}};
  struct itimerspec often_ns = {{0, 50000000}, {0, 50000000}}, far_ns = {{7200, 0}, {3600, 0}};
  setitimer(ITIMER_REAL, &often, NULL);
  setitimer(ITIMER_VIRTUAL, &far, NULL);
  setitimer(ITIMER_PROF, &far, NULL);
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value.sival_int = 4711};
  struct sigevent silent = {.sigev_notify = SIGEV_NONE};
  timer_t ticking, distant;
  if (timer_create(CLOCK_MONOTONIC, &event, &ticking) != 0 || timer_create(CLOCK_REALTIME, &silent, &distant) != 0)
    target_die("timer_create");
  timer_settime(ticking, 0, &often_ns, NULL);
  timer_settime(distant, 0, &far_ns, NULL);
  int distant_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  int wall_fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC);
  if (wall_fd < 0 || distant_fd < 0) target_die("timerfd");
  timerfd_settime(wall_fd, 0, &far_ns, NULL);
  timerfd_settime(distant_fd, 0, &far_ns, NULL);
  target_ready();

  while (target_wait()) {
    await_tick(&interval_ticks, "setitimer");
    await_tick(&posix_ticks, "POSIX timer");
    if (posix_value != 4711) target_bad("POSIX timer carries %d", (int)posix_value);
    struct itimerval left;
    struct itimerspec left_ns;
    getitimer(ITIMER_VIRTUAL, &left);
    check_left("ITIMER_VIRTUAL", left.it_value.tv_sec, left.it_interval.tv_sec, 7200);
    getitimer(ITIMER_PROF, &left);
    check_left("ITIMER_PROF", left.it_value.tv_sec, left.it_interval.tv_sec, 7200);
    timer_gettime(distant, &left_ns);
    check_left("distant POSIX timer", left_ns.it_value.tv_sec, left_ns.it_interval.tv_sec, 7200);
    timerfd_gettime(distant_fd, &left_ns);
    check_left("distant timerfd", left_ns.it_value.tv_sec, left_ns.it_interval.tv_sec, 7200);
    timerfd_gettime(wall_fd, &left_ns);
    check_left("distant wall clock timerfd", left_ns.it_value.tv_sec, left_ns.it_interval.tv_sec, 7200);
    uint64_t expirations = 0;
    timerfd_settime(distant_fd, 0, &often_ns, NULL);
    if (!target_readable(distant_fd, 5000) || read(distant_fd, &expirations, 8) != 8 || expirations == 0)
      target_bad("the timerfd does not expire");
    timerfd_settime(distant_fd, 0, &far_ns, NULL);
    target_ok("ticks=%d,%d", (int)interval_ticks, (int)posix_ticks);
  }
  return 0;
}
