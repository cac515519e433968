/* See common.h. */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *control_path;
static const char *report_path;

static void print_help(const char *name, const char *purpose, const struct target_option *options) {
  printf("%s: %s\n\nusage: %s [options]\n", name, purpose, name);
  printf("  --control FILE  print the ready line here (default: standard output)\n");
  printf("  --report FILE   write `ok ...` or `bad ...` here on SIGUSR1 (default: standard output)\n");
  for (const struct target_option *option = options; option != NULL && option->name != NULL; option++)
    printf("  --%s %s  %s\n", option->name, option->value == NULL ? "" : option->value, option->help);
  printf("  --help\n");
}

void target_begin(int argc, char **argv, const char *purpose, const struct target_option *options) {
  const char *slash = strrchr(argv[0], '/');
  const char *name = slash == NULL ? argv[0] : slash + 1;

  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) {
      print_help(name, purpose, options);
      exit(0);
    }
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (strcmp(argv[i], "--control") == 0 || strcmp(argv[i], "--report") == 0) {
      if (value == NULL) target_usage("%s needs a file", argv[i]);
      *(argv[i][2] == 'c' ? &control_path : &report_path) = value;
      i++;
      continue;
    }
    const struct target_option *option = options;
    while (option != NULL && option->name != NULL &&
           (strncmp(argv[i], "--", 2) != 0 || strcmp(argv[i] + 2, option->name) != 0))
      option++;
    if (option == NULL || option->name == NULL) target_usage("unknown argument %s", argv[i]);
    if (option->value == NULL) {
      option->parse(NULL);
      continue;
    }
    if (value == NULL) target_usage("%s needs a value", argv[i]);
    option->parse(value);
    i++;
  }

  sigset_t orders;
  sigemptyset(&orders);
  sigaddset(&orders, SIGUSR1);
  sigaddset(&orders, SIGTERM);
  sigprocmask(SIG_BLOCK, &orders, NULL);
  signal(SIGPIPE, SIG_IGN);
}

void target_ready(void) {
  char line[64];
  int length = snprintf(line, sizeof line, "ready %d\n", (int)getpid());
  int fd = control_path == NULL ? STDOUT_FILENO : open(control_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) target_die("open %s", control_path);
  target_write_all(fd, line, (size_t)length);
  if (control_path != NULL) close(fd);
}

bool target_wait(void) {
  sigset_t orders;
  sigemptyset(&orders);
  sigaddset(&orders, SIGUSR1);
  sigaddset(&orders, SIGTERM);
  for (;;) {
    int signal_number = sigwaitinfo(&orders, NULL);
    if (signal_number == SIGUSR1) return true;
    if (signal_number == SIGTERM) return false;
    /* EINTR: stopped and continued, or migrated. */
  }
}

void target_report(bool ok, const char *text) {
  char line[1024];
  int length = snprintf(line, sizeof line, "%s %s\n", ok ? "ok" : "bad", text);
  if (length >= (int)sizeof line) length = (int)sizeof line - 1;
  if (report_path == NULL) {
    target_write_all(STDOUT_FILENO, line, (size_t)length);
    return;
  }
  char temporary[PATH_MAX];
  snprintf(temporary, sizeof temporary, "%s.%d", report_path, (int)getpid());
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) target_die("open %s", temporary);
  target_write_all(fd, line, (size_t)length);
  close(fd);
  if (rename(temporary, report_path) != 0) target_die("rename %s", temporary);
}

void target_ok(const char *format, ...) {
  char text[960];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  target_report(true, text);
}

void target_bad(const char *format, ...) {
  char text[960];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  target_report(false, text);
  exit(1);
}

void target_die(const char *format, ...) {
  int error = errno;
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, ": %s\n", strerror(error));
  exit(2);
}

void target_usage(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, " (--help lists the options)\n");
  exit(64);
}

long target_number(const char *text, long min, long max) {
  char *end;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value < min || value > max)
    target_usage("%s is not a number from %ld to %ld", text, min, max);
  return value;
}

uint64_t target_mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

static uint64_t page_start(uint64_t seed, uint64_t index, uint64_t generation) {
  return target_mix(target_mix(target_mix(seed) ^ index) ^ generation);
}

void target_page_fill(void *page, uint64_t seed, uint64_t index, uint64_t generation) {
  uint64_t *words = page;
  uint64_t start = page_start(seed, index, generation);
  for (unsigned i = 0; i < TARGET_PAGE / sizeof *words; i++) words[i] = target_mix(start + i);
}

bool target_page_check(const void *page, uint64_t seed, uint64_t index, uint64_t generation) {
  const uint64_t *words = page;
  uint64_t start = page_start(seed, index, generation);
  uint64_t difference = 0;
  for (unsigned i = 0; i < TARGET_PAGE / sizeof *words; i++) difference |= words[i] ^ target_mix(start + i);
  return difference == 0;
}

uint64_t target_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

void target_write_all(int fd, const void *data, size_t length) {
  const char *from = data;
  while (length > 0) {
    ssize_t written = write(fd, from, length);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) target_die("write to fd %d", fd);
    from += written;
    length -= (size_t)written;
  }
}

bool target_read_all(int fd, void *data, size_t length) {
  char *to = data;
  while (length > 0) {
    ssize_t got = read(fd, to, length);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      if (got == 0) errno = 0;
      return false;
    }
    to += got;
    length -= (size_t)got;
  }
  return true;
}

const char *target_report_path(void) { return report_path; }
