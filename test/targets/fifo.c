/*
 * Purpose: a named pipe with unread data. Not in all-in-one: with one kernel below both hosts and a shared file system
 * the FIFO is one pipe for both, and a restore would double its contents (danger 43: a blocker).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

int main(int argc, char **argv) {
  target_begin(argc, argv, "a named pipe with unread data", NULL);
  unlink("fifo");
  if (mkfifo("fifo", 0600) != 0) target_die("mkfifo");
  int reader = open("fifo", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  int writer = open("fifo", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  if (reader < 0 || writer < 0) target_die("open fifo");
  target_write_all(writer, "0123456789", 10);
  target_ready();

  while (target_wait()) {
    char data[64];
    ssize_t got = read(reader, data, sizeof data);
    if (got != 10 || memcmp(data, "0123456789", 10) != 0) target_bad("%zd bytes in the FIFO, not 10", got);
    target_write_all(writer, "0123456789", 10);
    target_ok("bytes=10");
  }
  return 0;
}
