/*
 * Purpose: signals: pending ones (queued, with values, in order; of the process and of one thread), masks, handlers,
 * ignored ones, the alternate stack.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

enum { QUEUED = 5 };

static char *alternate;
static volatile sig_atomic_t handled_inside;
static sigset_t blocked;
static long thread_tid;
static volatile const char *thread_complaint;
static pthread_barrier_t barrier;

static void on_alternate_stack(int number, siginfo_t *info, void *context) {
  (void)number, (void)info, (void)context;
  char here;
  handled_inside = &here >= alternate && &here < alternate + 65536 ? 1 : -1;
}

static void queue_signals(void) {
  for (int i = 0; i < QUEUED; i++) {
    union sigval value = {.sival_int = 1000 + i};
    if (sigqueue(getpid(), SIGRTMIN + 3, value) != 0) target_die("sigqueue");
  }
  kill(getpid(), SIGUSR2);
}

static void check_queue(void) {
  sigset_t pending, only;
  struct timespec now = {0, 0};
  siginfo_t info;
  sigpending(&pending);
  if (!sigismember(&pending, SIGUSR2)) target_bad("SIGUSR2 is not pending any more");
  sigemptyset(&only);
  sigaddset(&only, SIGRTMIN + 3);
  for (int i = 0; i < QUEUED; i++) {
    if (sigtimedwait(&only, &info, &now) != SIGRTMIN + 3) target_bad("only %d of %d queued signals", i, QUEUED);
    if (info.si_value.sival_int != 1000 + i || info.si_code != SI_QUEUE || info.si_pid != getpid())
      target_bad("queued signal %d carries %d, code %d, pid %d", i, info.si_value.sival_int, info.si_code, info.si_pid);
  }
  if (sigtimedwait(&only, &info, &now) > 0) target_bad("a queued signal was doubled");
  sigemptyset(&only);
  sigaddset(&only, SIGUSR2);
  sigtimedwait(&only, &info, &now);
}

static void check_actions(void) {
  struct sigaction action;
  sigaction(SIGHUP, NULL, &action);
  if (action.sa_sigaction != on_alternate_stack || !(action.sa_flags & SA_ONSTACK) || !(action.sa_flags & SA_SIGINFO) ||
      !sigismember(&action.sa_mask, SIGWINCH))
    target_bad("handler of SIGHUP");
  sigaction(SIGQUIT, NULL, &action);
  if (action.sa_handler != SIG_IGN) target_bad("SIGQUIT is not ignored any more");
  sigset_t now;
  sigprocmask(SIG_BLOCK, NULL, &now);
  for (int i = 1; i < 65; i++)
    if (sigismember(&now, i) != sigismember(&blocked, i)) target_bad("signal %d in the mask", i);
  handled_inside = 0;
  raise(SIGHUP);
  if (handled_inside != 1) target_bad("handler ran %s", handled_inside == 0 ? "not at all" : "on the wrong stack");
}

/* Has a signal of its own pending, and a mask of its own. */
static void *keep_pending(void *unused) {
  (void)unused;
  sigset_t mask, pending;
  siginfo_t info;
  struct timespec now = {0, 0};
  sigemptyset(&mask);
  sigaddset(&mask, SIGRTMIN + 5);
  pthread_sigmask(SIG_BLOCK, &mask, NULL);
  thread_tid = syscall(SYS_gettid);
  for (;;) {
    if (syscall(SYS_tgkill, getpid(), thread_tid, SIGRTMIN + 5) != 0) thread_complaint = "tgkill";
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    sigpending(&pending);
    if (!sigismember(&pending, SIGRTMIN + 5)) thread_complaint = "the thread's signal is not pending any more";
    else if (sigtimedwait(&mask, &info, &now) < 0) thread_complaint = "the thread's signal cannot be taken";
  }
  return NULL;
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "pending signals, masks, handlers, alternate stack", NULL);
  pthread_t thread;
  pthread_barrier_init(&barrier, NULL, 2);
  alternate = malloc(65536);
  stack_t stack = {.ss_sp = alternate, .ss_size = 65536};
  struct sigaction action = {.sa_sigaction = on_alternate_stack, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGWINCH);
  if (sigaltstack(&stack, NULL) != 0 || sigaction(SIGHUP, &action, NULL) != 0) target_die("handlers");
  signal(SIGQUIT, SIG_IGN);
  sigset_t more;
  sigemptyset(&more);
  sigaddset(&more, SIGUSR2);
  sigaddset(&more, SIGRTMIN + 3);
  sigprocmask(SIG_BLOCK, &more, NULL);
  sigprocmask(SIG_BLOCK, NULL, &blocked);
  if (pthread_create(&thread, NULL, keep_pending, NULL) != 0) target_die("thread");
  pthread_barrier_wait(&barrier);
  queue_signals();
  target_ready();

  while (target_wait()) {
    check_queue();
    check_actions();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    if (thread_complaint != NULL) target_bad("%s", (const char *)thread_complaint);
    queue_signals();
    target_ok("queued=%d", QUEUED);
  }
  return 0;
}
