/*
 * Purpose: open files: positions (shared and apart), O_APPEND, unlinked, unlinked with another name left (link-remap),
 * renamed, truncated, a folder, devices.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

static int appended, positioned, duplicate, apart, unlinked, linked, renamed, truncated, folder, null_device, reader;
static long appended_size;

static int make(const char *name, int flags, const char *text) {
  int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0640);
  if (fd < 0) target_die("open %s", name);
  if (ftruncate(fd, 0) != 0) target_die("truncate %s", name);
  target_write_all(fd, text, strlen(text));
  return fd;
}

static void expect_text(int fd, const char *text, const char *what) {
  char read_back[256] = {0};
  ssize_t got = pread(fd, read_back, sizeof read_back - 1, 0);
  if (got != (ssize_t)strlen(text) || strcmp(read_back, text) != 0) target_bad("%s holds `%s`", what, read_back);
}

static void expect_position(int fd, off_t position, const char *what) {
  off_t now = lseek(fd, 0, SEEK_CUR);
  if (now != position) target_bad("%s is at %ld, was at %ld", what, (long)now, (long)position);
}

static void expect_flags(int fd, int flags, const char *what) {
  int now = fcntl(fd, F_GETFL);
  if ((now & (O_ACCMODE | O_APPEND | O_NONBLOCK)) != flags) target_bad("%s: flags %x, were %x", what, now, flags);
}

static void set_up(void) {
  appended = open("appended", O_WRONLY | O_CREAT | O_APPEND | O_TRUNC | O_CLOEXEC, 0640);
  positioned = make("positioned", 0, "0123456789");
  duplicate = dup(positioned);
  apart = open("positioned", O_RDONLY);
  reader = open("positioned", O_RDONLY | O_CLOEXEC);
  lseek(positioned, 4, SEEK_SET);
  lseek(apart, 7, SEEK_SET);
  unlinked = make("unlinked", 0, "still there");
  unlink("unlinked");
  linked = make("linked", 0, "has another name");
  unlink("other-name");
  if (link("linked", "other-name") != 0) target_die("link");
  unlink("linked");
  renamed = make("old-name", 0, "renamed");
  if (rename("old-name", "new-name") != 0) target_die("rename");
  truncated = make("truncated", O_TRUNC, "long text");
  if (ftruncate(truncated, 4) != 0) target_die("ftruncate");
  folder = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  null_device = open("/dev/null", O_WRONLY | O_NONBLOCK);
  if (appended < 0 || duplicate < 0 || apart < 0 || reader < 0 || folder < 0 || null_device < 0) target_die("open");
}

static void check(unsigned long round) {
  struct stat facts;
  expect_position(positioned, 4, "positioned file");
  expect_position(duplicate, 4, "its duplicate");
  expect_position(apart, 7, "the same file opened apart");
  lseek(duplicate, 5, SEEK_SET);
  expect_position(positioned, 5, "the position that a duplicate shares");
  lseek(duplicate, 4, SEEK_SET);
  expect_text(reader, "0123456789", "file opened for reading");
  expect_flags(reader, O_RDONLY, "file opened for reading");
  expect_flags(appended, O_WRONLY | O_APPEND, "appended file");
  expect_flags(null_device, O_WRONLY | O_NONBLOCK, "/dev/null");
  if (!(fcntl(reader, F_GETFD) & FD_CLOEXEC) || (fcntl(apart, F_GETFD) & FD_CLOEXEC)) target_bad("FD_CLOEXEC");

  expect_text(unlinked, "still there", "unlinked file");
  if (fstat(unlinked, &facts) != 0 || facts.st_nlink != 0 || (facts.st_mode & 07777) != 0640)
    target_bad("unlinked file has %lu links, mode %o", (unsigned long)facts.st_nlink, facts.st_mode);
  expect_text(linked, "has another name", "file with another name");
  struct stat other;
  if (stat("other-name", &other) != 0 || fstat(linked, &facts) != 0 || other.st_ino != facts.st_ino)
    target_bad("the unlinked file and its other name are two files now");
  if (access("linked", F_OK) == 0) target_bad("the unlinked name is back");
  expect_text(renamed, "renamed", "renamed file");
  expect_text(truncated, "long", "truncated file");
  if (faccessat(folder, "new-name", F_OK, 0) != 0) target_bad("open folder: new-name: %s", strerror(errno));

  target_write_all(appended, "line\n", 5);
  appended_size += 5;
  if (fstat(appended, &facts) != 0 || facts.st_size != appended_size)
    target_bad("appended file has %ld bytes instead of %ld", (long)facts.st_size, appended_size);
  target_ok("files=11 round=%lu", round);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "open files in every state", NULL);
  set_up();
  target_ready();
  for (unsigned long round = 1; target_wait(); round++) check(round);
  return 0;
}
