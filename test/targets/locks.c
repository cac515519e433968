/*
 * Purpose: file locks (flock, POSIX, OFD) are still held: another process of the tree cannot take them.
 * Leases are not here: they are a blocker (danger 42).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common.h"

static struct flock range(short type, off_t start, off_t length) {
  return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
}

/* Tries to take what the parent holds, by files of its own; answers 'y' if it cannot. */
static int rival(int socket) {
  char question;
  while (target_read_all(socket, &question, 1)) {
    char answer = 'y';
    int fd = open("locked", O_RDWR | O_CLOEXEC);
    struct flock write_lock = range(F_WRLCK, 0, 10), read_lock = range(F_RDLCK, 20, 10), free_part = range(F_WRLCK, 50, 10);
    struct flock ofd_lock = range(F_WRLCK, 100, 10);
    if (fd < 0) answer = 'f';
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) answer = 'l';
    if (fcntl(fd, F_SETLK, &write_lock) == 0) answer = 'w';
    if (fcntl(fd, F_SETLK, &free_part) != 0) answer = 'u';
    if (fcntl(fd, F_SETLK, &read_lock) != 0) answer = 'r'; /* read locks are shared */
    read_lock.l_type = F_WRLCK;
    if (fcntl(fd, F_SETLK, &read_lock) == 0) answer = 'R';
    if (fcntl(fd, F_SETLK, &ofd_lock) == 0) answer = 'o';
    close(fd);
    target_write_all(socket, &answer, 1);
  }
  return 0;
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "flock, POSIX and OFD locks", NULL);
  int rival_pid;
  int posix = open("locked", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  int shared = open("locked", O_RDWR | O_CLOEXEC), ofd = open("locked", O_RDWR | O_CLOEXEC);
  struct flock write_lock = range(F_WRLCK, 0, 10), read_lock = range(F_RDLCK, 20, 10), ofd_lock = range(F_WRLCK, 100, 10);
  /* The rival is born first, so that it inherits none of the locks' descriptors. */
  int to_rival = target_child(rival, &rival_pid);
  if (posix < 0 || shared < 0 || ofd < 0 || fcntl(posix, F_SETLK, &write_lock) != 0 ||
      fcntl(posix, F_SETLK, &read_lock) != 0 || flock(shared, LOCK_SH) != 0 || fcntl(ofd, F_OFD_SETLK, &ofd_lock) != 0)
    target_die("locks");
  if (target_ask_child(to_rival, '?') != 'y') target_die("the rival got a lock");
  target_ready();

  while (target_wait()) {
    int answer = target_ask_child(to_rival, '?');
    if (answer != 'y') target_bad("the rival says %c: a lock is gone or too wide", answer < 0 ? '-' : answer);
    target_ok("locks=4");
  }
  return 0;
}
