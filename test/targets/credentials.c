/*
 * Purpose: a process that gave root up (nobody, with groups), with its working folder and umask.
 * Without CAP_SYS_RESOURCE CRIU dumps it only with phaul's preload (criu.md 0.8).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

enum { NOBODY = 65534 };

/* In the order in which the kernel keeps them. */
static const gid_t groups[3] = {4, 27, NOBODY};

static void check(const char *folder) {
  uid_t real, effective, saved;
  gid_t group, effective_group, saved_group, now[16];
  getresuid(&real, &effective, &saved);
  getresgid(&group, &effective_group, &saved_group);
  if (real != NOBODY || effective != NOBODY || saved != NOBODY) target_bad("user is %d,%d,%d", real, effective, saved);
  if (group != NOBODY || effective_group != NOBODY || saved_group != NOBODY)
    target_bad("group is %d,%d,%d", group, effective_group, saved_group);
  int count = getgroups(16, now);
  if (count != 3 || memcmp(now, groups, sizeof groups) != 0) target_bad("%d supplementary groups", count);
  if (setuid(0) == 0) target_bad("it could become root again");
  char capabilities[64], path[PATH_MAX];
  if (!target_status_line(0, "CapEff", capabilities, sizeof capabilities) || strspn(capabilities, "0") != 16)
    target_bad("capabilities %s", capabilities);
  if (getcwd(path, sizeof path) == NULL || strcmp(path, folder) != 0) target_bad("working folder is %s", path);
  mode_t mask = umask(037);
  if (mask != 037) target_bad("umask is %o", mask);
  if (prctl(PR_GET_DUMPABLE) != 1) target_bad("dumpable is %d", prctl(PR_GET_DUMPABLE));
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "a process that gave root up", NULL);
  char folder[PATH_MAX];
  if (mkdir("of-nobody", 0755) != 0 && errno != EEXIST) target_die("mkdir");
  /* It must still be able to write its report beside this folder. */
  if (chown(".", NOBODY, NOBODY) != 0 || chown("of-nobody", NOBODY, NOBODY) != 0) target_die("chown");
  if (chdir("of-nobody") != 0 || getcwd(folder, sizeof folder) == NULL) target_die("chdir");
  umask(037);
  if (setgroups(3, groups) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0)
    target_die("give root up");
  prctl(PR_SET_DUMPABLE, 1); /* setresuid() cleared it: prctl(2) */
  check(folder);
  target_ready();
  while (target_wait()) {
    check(folder);
    target_ok("user=%d folder=%s", NOBODY, folder);
  }
  return 0;
}
