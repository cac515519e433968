/*
 * Purpose: pipes keep unread data, sizes and flags; a busy pipe between two processes loses and doubles nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

enum { UNREAD = 40000 };

static int stuffed[2], ended[2], busy[2];

/* Writes 1, 2, 3, ... into the busy pipe; sleeps when it is full. The socket ends it. */
static int stream(int socket) {
  close(busy[0]);
  for (uint64_t number = 1;; number++) {
    if (target_readable(socket, 0)) return 0;
    if (write(busy[1], &number, sizeof number) != (ssize_t)sizeof number) return 0;
    if (number % 64 == 0) usleep(1000);
  }
}

static void stuff(uint64_t round) {
  char data[UNREAD];
  for (size_t i = 0; i < UNREAD; i++) data[i] = (char)target_mix(round * UNREAD + i);
  target_write_all(stuffed[1], data, UNREAD);
}

static void check_stuffed(uint64_t round) {
  char data[UNREAD + 1];
  ssize_t got = read(stuffed[0], data, sizeof data);
  if (got != UNREAD) target_bad("%zd of %d unread bytes", got, UNREAD);
  for (size_t i = 0; i < UNREAD; i++)
    if (data[i] != (char)target_mix(round * UNREAD + i)) target_bad("unread byte %zu", i);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "pipes with unread data, sizes, flags; a busy pipe", NULL);
  int child_pid;
  uint64_t expected = 1, total = 0, round = 0;
  if (pipe2(stuffed, O_NONBLOCK | O_CLOEXEC) != 0 || pipe(ended) != 0 || pipe(busy) != 0) target_die("pipe");
  int size = fcntl(stuffed[1], F_SETPIPE_SZ, 131072);
  target_write_all(ended[1], "the end", 7);
  close(ended[1]);
  stuff(round);
  target_child(stream, &child_pid);
  close(busy[1]);
  target_ready();

  while (target_wait()) {
    if (fcntl(stuffed[1], F_GETPIPE_SZ) != size) target_bad("pipe size %d, was %d", fcntl(stuffed[1], F_GETPIPE_SZ), size);
    if (!(fcntl(stuffed[0], F_GETFL) & O_NONBLOCK)) target_bad("O_NONBLOCK is gone");
    if (!(fcntl(stuffed[0], F_GETFD) & FD_CLOEXEC)) target_bad("FD_CLOEXEC is gone");
    check_stuffed(round);
    stuff(++round);
    char end[16];
    if (round == 1 && (read(ended[0], end, sizeof end) != 7 || memcmp(end, "the end", 7) != 0))
      target_bad("data before the end of a pipe");
    if (read(ended[0], end, sizeof end) != 0) target_bad("the end of a pipe");
    /* Twice what the pipe holds: the first half was in flight, the second is new. */
    for (int i = 0; i < 16384; i++) {
      uint64_t number;
      if (!target_readable(busy[0], 5000) || !target_read_all(busy[0], &number, sizeof number))
        target_bad("the busy pipe is silent after %lu", (unsigned long)expected);
      if (number != expected) target_bad("busy pipe: %lu instead of %lu", (unsigned long)number, (unsigned long)expected);
      expected++;
      total++;
    }
    target_ok("streamed=%lu", (unsigned long)total);
  }
  return 0;
}
