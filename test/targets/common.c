/* See common.h. */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *control_path;
static const char *report_path;
static const char *work_path;

static void print_help(const char *name, const char *purpose, const struct target_option *options) {
  printf("%s: %s\n\nusage: %s [options]\n", name, purpose, name);
  printf("  --control FILE  print the ready line here (default: standard output)\n");
  printf("  --dir DIR       work in this folder (default: the current one)\n");
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
    const char **common = strcmp(argv[i], "--control") == 0  ? &control_path
                          : strcmp(argv[i], "--report") == 0 ? &report_path
                          : strcmp(argv[i], "--dir") == 0    ? &work_path
                                                             : NULL;
    if (common != NULL) {
      if (value == NULL) target_usage("%s needs a path", argv[i]);
      *common = value;
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

  if (work_path != NULL && chdir(work_path) != 0) target_die("cd %s", work_path);
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

void target_skip(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, "\n");
  exit(77);
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

/* Parents' ends: a child must not keep its siblings' open, or they would never read the end. */
static int child_sockets[64];
static unsigned child_count;

int target_child(int (*body)(int socket), int *pid) {
  int ends[2];
  if (child_count == sizeof child_sockets / sizeof *child_sockets) target_usage("too many children");
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) target_die("socketpair");
  *pid = fork();
  if (*pid < 0) target_die("fork");
  if (*pid > 0) {
    close(ends[1]);
    child_sockets[child_count++] = ends[0];
    return ends[0];
  }
  close(ends[0]);
  for (unsigned i = 0; i < child_count; i++) close(child_sockets[i]);
  child_count = 0;
  _exit(body(ends[1]));
}

int target_ask_child(int socket, char question) {
  char answer;
  if (send(socket, &question, 1, MSG_NOSIGNAL) != 1 || !target_readable(socket, 10000)) return -1;
  return target_read_all(socket, &answer, 1) ? answer : -1;
}

bool target_readable(int fd, int ms) {
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  uint64_t end = target_now() + (uint64_t)ms * 1000000;
  for (;;) {
    int ready = poll(&poller, 1, ms);
    if (ready >= 0) return ready == 1;
    uint64_t now = target_now();
    ms = now >= end ? 0 : (int)((end - now) / 1000000);
  }
}

static bool read_status(int pid, char *text, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/status", pid == 0 ? (int)getpid() : pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t got = read(fd, text, size - 1);
  close(fd);
  if (got <= 0) return false;
  text[got] = '\0';
  return true;
}

bool target_status_line(int pid, const char *key, char *value, size_t size) {
  char text[8192], pattern[64];
  if (!read_status(pid, text, sizeof text)) return false;
  snprintf(pattern, sizeof pattern, "\n%s:", key);
  char *line = strstr(text, pattern);
  if (line == NULL) return false;
  line += strlen(pattern);
  line += strspn(line, " \t");
  snprintf(value, size, "%.*s", (int)strcspn(line, "\n"), line);
  return true;
}

char target_state(int pid) {
  char value[64];
  return target_status_line(pid, "State", value, sizeof value) ? value[0] : '?';
}
