/*
 * Purpose: arguments, environment, auxiliary vector, executable link and vDSO are what they were.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

enum { MAX_TEXT = 65536 };

struct snapshot {
  char text[MAX_TEXT];
  ssize_t length;
};

static const char *const files[3] = {"/proc/self/cmdline", "/proc/self/environ", "/proc/self/auxv"};
static struct snapshot before[3], now[3];

static void take(struct snapshot *snapshots) {
  for (int i = 0; i < 3; i++) {
    int fd = open(files[i], O_RDONLY | O_CLOEXEC);
    snapshots[i].length = fd < 0 ? -1 : read(fd, snapshots[i].text, MAX_TEXT);
    if (snapshots[i].length < 0) target_bad("%s cannot be read", files[i]);
    close(fd);
  }
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "arguments, environment, auxiliary vector", NULL);
  char executable[PATH_MAX] = {0}, link_now[PATH_MAX] = {0};
  const char *path = getenv("PATH");
  char *path_before = strdup(path == NULL ? "" : path);
  setenv("TARGET_ADDED", "later", 1);
  unsigned long page_size = getauxval(AT_PAGESZ), entry = getauxval(AT_ENTRY);
  if (readlink("/proc/self/exe", executable, sizeof executable - 1) < 0) target_die("/proc/self/exe");
  take(before);
  target_ready();

  while (target_wait()) {
    take(now);
    for (int i = 0; i < 3; i++)
      if (before[i].length != now[i].length || memcmp(before[i].text, now[i].text, (size_t)now[i].length) != 0)
        target_bad("%s changed", files[i]);
    path = getenv("PATH");
    if (strcmp(path == NULL ? "" : path, path_before) != 0) target_bad("PATH changed");
    if (getenv("TARGET_ADDED") == NULL || strcmp(getenv("TARGET_ADDED"), "later") != 0) target_bad("added variable");
    if (getauxval(AT_PAGESZ) != page_size || getauxval(AT_ENTRY) != entry) target_bad("auxiliary vector");
    if (readlink("/proc/self/exe", link_now, sizeof link_now - 1) < 0 || strcmp(executable, link_now) != 0)
      target_bad("executable is %s", link_now);
    struct timespec by_vdso;
    if (clock_gettime(CLOCK_REALTIME, &by_vdso) != 0 || llabs((long long)time(NULL) - by_vdso.tv_sec) > 1)
      target_bad("vDSO clock");
    target_ok("arguments=%d", argc);
  }
  return 0;
}
