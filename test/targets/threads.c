/*
 * Purpose: threads keep their ids, names, TLS, mutexes, conditions, barriers, and a robust mutex its owner.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

enum { THREADS = 8 };

static _Thread_local uint64_t tls_value;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t started = PTHREAD_COND_INITIALIZER;
static pthread_cond_t order = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static unsigned long round_number;
static unsigned running;
static unsigned long visits[THREADS];
static const char *_Atomic complaint;

static pthread_mutex_t robust;
static pthread_mutex_t owner_gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_t owner;
static atomic_bool owned;

static void check_self(unsigned number, long tid) {
  char name[16], expected[16];
  snprintf(expected, sizeof expected, "worker-%u", number);
  prctl(PR_GET_NAME, name);
  if (tls_value != target_mix(number + 1)) complaint = "thread-local storage";
  if (syscall(SYS_gettid) != tid) complaint = "thread id";
  if (strcmp(name, expected) != 0) complaint = "thread name";
  if (sched_getcpu() < 0) complaint = "sched_getcpu (rseq)";
}

static void *work(void *argument) {
  unsigned number = (unsigned)(uintptr_t)argument;
  char name[16];
  long tid = syscall(SYS_gettid);
  tls_value = target_mix(number + 1);
  snprintf(name, sizeof name, "worker-%u", number);
  prctl(PR_SET_NAME, name);
  pthread_mutex_lock(&mutex);
  running++;
  pthread_cond_broadcast(&started);
  for (unsigned long seen = 0;;) {
    while (round_number == seen) pthread_cond_wait(&order, &mutex);
    seen = round_number;
    pthread_mutex_unlock(&mutex);
    check_self(number, tid);
    pthread_rwlock_rdlock(&rwlock);
    visits[number]++;
    pthread_rwlock_unlock(&rwlock);
    pthread_barrier_wait(&barrier);
    pthread_mutex_lock(&mutex);
  }
  return NULL;
}

/* Dies with the robust mutex in its hands when the gate opens. */
static void *own(void *unused) {
  (void)unused;
  pthread_mutex_lock(&robust);
  owned = true;
  pthread_mutex_lock(&owner_gate);
  pthread_mutex_unlock(&owner_gate);
  return NULL;
}

static void start_owner(void) {
  owned = false;
  pthread_mutex_lock(&owner_gate);
  if (pthread_create(&owner, NULL, own, NULL) != 0) target_die("owner thread");
  while (!owned) usleep(1000);
}

static void check_robust(void) {
  if (pthread_mutex_trylock(&robust) != EBUSY) target_bad("robust mutex is not held by its owner");
  pthread_mutex_unlock(&owner_gate);
  pthread_join(owner, NULL);
  int result = pthread_mutex_lock(&robust);
  if (result != EOWNERDEAD) target_bad("robust mutex: owner died, lock says %s", strerror(result));
  pthread_mutex_consistent(&robust);
  pthread_mutex_unlock(&robust);
  start_owner();
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "threads, TLS, mutex, condition, barrier, robust mutex", NULL);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&robust, &attributes);
  pthread_barrier_init(&barrier, NULL, THREADS + 1);
  for (uintptr_t i = 0; i < THREADS; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, (void *)i) != 0) target_die("thread");
  }
  pthread_mutex_lock(&mutex);
  while (running < THREADS) pthread_cond_wait(&started, &mutex);
  pthread_mutex_unlock(&mutex);
  start_owner();
  target_ready();

  while (target_wait()) {
    pthread_mutex_lock(&mutex);
    round_number++;
    pthread_cond_broadcast(&order);
    pthread_mutex_unlock(&mutex);
    pthread_barrier_wait(&barrier);
    if (complaint != NULL) target_bad("%s", complaint);
    for (unsigned i = 0; i < THREADS; i++)
      if (visits[i] != round_number) target_bad("thread %u made %lu rounds of %lu", i, visits[i], round_number);
    check_robust();
    target_ok("threads=%d rounds=%lu", THREADS, round_number);
  }
  return 0;
}
