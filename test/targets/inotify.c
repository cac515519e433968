/*
 * Purpose: inotify watches on a folder and a file still report, under the same watch numbers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

/* Reads until an event of this watch with this bit comes. */
static void expect(int fd, int watch, uint32_t bit, const char *what) {
  char space[4096] __attribute__((aligned(8)));
  while (target_readable(fd, 3000)) {
    ssize_t got = read(fd, space, sizeof space);
    for (char *at = space; got > 0 && at < space + got;) {
      struct inotify_event *event = (struct inotify_event *)at;
      if (event->wd == watch && (event->mask & bit)) return;
      at += sizeof *event + event->len;
    }
  }
  target_bad("%s: no event", what);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "inotify watches", NULL);
  mkdir("watched", 0755);
  int file = open("watched-file", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  int events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (file < 0 || events < 0) target_die("inotify");
  int first = inotify_add_watch(events, "watched", IN_CREATE | IN_DELETE);
  int second = inotify_add_watch(events, "watched-file", IN_MODIFY);
  inotify_rm_watch(events, first); /* so that the numbers do not begin at 1 */
  first = inotify_add_watch(events, "watched", IN_CREATE | IN_DELETE);
  if (first < 0 || second < 0) target_die("inotify_add_watch");
  target_ready();

  while (target_wait()) {
    char old[4096];
    while (read(events, old, sizeof old) > 0) continue;
    int made = open("watched/new", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (made < 0) target_bad("watched/new: %s", strerror(errno));
    close(made);
    expect(events, first, IN_CREATE, "create in the folder");
    unlink("watched/new");
    expect(events, first, IN_DELETE, "delete in the folder");
    target_write_all(file, "x", 1);
    expect(events, second, IN_MODIFY, "write to the file");
    target_ok("watches=%d,%d", first, second);
  }
  return 0;
}
