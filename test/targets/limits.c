/*
 * Purpose: resource limits, nice value, scheduling policy, OOM score and process attributes (prctl).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common.h"

static struct rlimit limits[RLIM_NLIMITS];
static char score[32];

static void read_score(char *text, size_t size) {
  int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
  memset(text, 0, size);
  if (fd < 0 || read(fd, text, size - 1) < 0) target_die("oom_score_adj");
  close(fd);
}

static void lower(int resource, rlim_t current, rlim_t hard) {
  struct rlimit limit = {current, hard};
  if (setrlimit((__rlimit_resource_t)resource, &limit) != 0) target_die("setrlimit %d", resource);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "limits, nice, scheduling, process attributes", NULL);
  lower(RLIMIT_NOFILE, 111, 222);
  lower(RLIMIT_CORE, 0, 0);
  lower(RLIMIT_STACK, 4 << 20, RLIM_INFINITY);
  if (setpriority(PRIO_PROCESS, 0, 7) != 0) target_die("nice");
  struct sched_param parameters = {0};
  if (sched_setscheduler(0, SCHED_BATCH, &parameters) != 0) target_die("SCHED_BATCH");
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd >= 0) {
    target_write_all(fd, "321", 3);
    close(fd);
  }
  prctl(PR_SET_NAME, "own name");
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (int i = 0; i < (int)RLIM_NLIMITS; i++) getrlimit((__rlimit_resource_t)i, &limits[i]);
  read_score(score, sizeof score);
  target_ready();

  while (target_wait()) {
    for (int i = 0; i < (int)RLIM_NLIMITS; i++) {
      struct rlimit now;
      getrlimit((__rlimit_resource_t)i, &now);
      if (now.rlim_cur != limits[i].rlim_cur || now.rlim_max != limits[i].rlim_max)
        target_bad("limit %d is %lu/%lu, was %lu/%lu", i, (unsigned long)now.rlim_cur, (unsigned long)now.rlim_max,
                   (unsigned long)limits[i].rlim_cur, (unsigned long)limits[i].rlim_max);
    }
    if (getpriority(PRIO_PROCESS, 0) != 7) target_bad("nice value %d", getpriority(PRIO_PROCESS, 0));
    if (sched_getscheduler(0) != SCHED_BATCH) target_bad("scheduling policy %d", sched_getscheduler(0));
    char text[32], name[16];
    read_score(text, sizeof text);
    if (strcmp(text, score) != 0) target_bad("oom_score_adj is %s", text);
    prctl(PR_GET_NAME, name);
    if (strcmp(name, "own name") != 0) target_bad("name is %s", name);
    int subreaper = 0;
    prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
    if (subreaper != 1) target_bad("not a subreaper any more");
    target_ok("limits=%d", (int)RLIM_NLIMITS);
  }
  return 0;
}
