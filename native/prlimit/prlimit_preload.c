/*
 * LD_PRELOAD for CRIU on hosts without CAP_SYS_RESOURCE.
 *
 * There prlimit(2) refuses to read the limits of a process whose uid or gid differs from the caller's, and CRIU
 * cannot dump it. The same figures stand in /proc/PID/limits for everybody. So: a *read* of another process's limit
 * that failed with EPERM is answered from there; every other call is passed on as it is.
 *
 * Built on one host, loaded into another's glibc: no symbol of the C library but __errno_location is used.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifndef __x86_64__
#error "only x86-64 so far: the raw system call below is written for it"
#endif

#define EXPORTED __attribute__((visibility("default")))

/* The 26th column of /proc/PID/limits is where the soft limit starts (proc_pid_limits, fs/proc/base.c: "%-25s "). */
enum { NAME_WIDTH = 26, LIMITS_BYTES = 4096 };

/* Words of fs/proc/base.c, lnames[], in the order of asm-generic/resource.h. */
static const char *const names[] = {
    "Max cpu time",      "Max file size",       "Max data size",     "Max stack size",        "Max core file size",
    "Max resident set",  "Max processes",       "Max open files",    "Max locked memory",     "Max address space",
    "Max file locks",    "Max pending signals", "Max msgqueue size", "Max nice priority",     "Max realtime priority",
    "Max realtime timeout",
};

static long raw(long number, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

/* Writes "/proc/PID/limits"; room for 10 digits. */
static void path_of(long pid, char path[32]) {
  char digits[20];
  int count = 0;
  for (; pid > 0; pid /= 10) digits[count++] = (char)('0' + pid % 10);
  char *to = path;
  for (const char *from = "/proc/"; *from != '\0';) *to++ = *from++;
  while (count > 0) *to++ = digits[--count];
  for (const char *from = "/limits"; *from != '\0';) *to++ = *from++;
  *to = '\0';
}

static size_t read_file(const char *path, char *text, size_t room) {
  const long fd = raw(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
  if (fd < 0) return 0;
  size_t length = 0;
  while (length < room) {
    const long got = raw(SYS_read, fd, (long)(text + length), (long)(room - length), 0, 0, 0);
    if (got <= 0) break;
    length += (size_t)got;
  }
  raw(SYS_close, fd, 0, 0, 0, 0, 0);
  return length;
}

/* One figure or "unlimited", behind blanks; `from` is moved behind it. False if there is neither. */
static int read_limit(const char **from, const char *end, rlim64_t *limit) {
  const char *at = *from;
  while (at < end && *at == ' ') at++;
  if (at == end) return 0;
  if (*at == 'u') {
    *limit = RLIM64_INFINITY;
    while (at < end && *at != ' ' && *at != '\n') at++;
  } else {
    if (*at < '0' || *at > '9') return 0;
    rlim64_t value = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++) value = value * 10 + (rlim64_t)(*at - '0');
    *limit = value;
  }
  *from = at;
  return 1;
}

static int named(const char *line, const char *end, const char *name) {
  for (; *name != '\0'; line++, name++) {
    if (line == end || *line != *name) return 0;
  }
  return line < end && *line == ' ';
}

static int from_proc(long pid, unsigned long resource, struct rlimit64 *limits) {
  char path[32];
  char text[LIMITS_BYTES];
  path_of(pid, path);
  const char *const end = text + read_file(path, text, sizeof text);
  for (const char *line = text; line < end;) {
    const char *stop = line;
    while (stop < end && *stop != '\n') stop++;
    if (stop - line > NAME_WIDTH && named(line, stop, names[resource])) {
      const char *figures = line + NAME_WIDTH;
      return read_limit(&figures, stop, &limits->rlim_cur) && read_limit(&figures, stop, &limits->rlim_max);
    }
    line = stop + 1;
  }
  return 0;
}

static long answer(long result) {
  if (result >= 0 || result < -4095) return result;
  errno = (int)-result;
  return -1;
}

/* struct rlimit64 is the kernel's own layout. pid 0 is the caller itself, which is never refused. */
static long limits_of(long pid, unsigned long resource, const void *new_limits, struct rlimit64 *old_limits) {
  const long result = raw(SYS_prlimit64, pid, (long)resource, (long)new_limits, (long)old_limits, 0, 0);
  if (result != -EPERM || pid <= 0 || new_limits != NULL || old_limits == NULL) return result;
  if (resource >= sizeof names / sizeof *names) return result;
  struct rlimit64 found;
  if (!from_proc(pid, resource, &found)) return result;
  *old_limits = found;
  return 0;
}

EXPORTED long syscall(long number, ...) {
  va_list rest;
  va_start(rest, number);
  const long a = va_arg(rest, long);
  const long b = va_arg(rest, long);
  const long c = va_arg(rest, long);
  const long d = va_arg(rest, long);
  const long e = va_arg(rest, long);
  const long f = va_arg(rest, long);
  va_end(rest);
  /* The kernel takes pid and resource as 32 bits. */
  if (number == SYS_prlimit64) return answer(limits_of((int)a, (unsigned int)b, (const void *)c, (void *)d));
  return answer(raw(number, a, b, c, d, e, f));
}

EXPORTED int prlimit64(pid_t pid, enum __rlimit_resource resource, const struct rlimit64 *new_limits,
                       struct rlimit64 *old_limits) {
  return (int)answer(limits_of(pid, (unsigned long)resource, new_limits, old_limits));
}

/* On x86-64 struct rlimit and struct rlimit64 are the same. */
EXPORTED int prlimit(pid_t pid, enum __rlimit_resource resource, const struct rlimit *new_limits,
                     struct rlimit *old_limits) {
  return (int)answer(limits_of(pid, (unsigned long)resource, new_limits, (struct rlimit64 *)old_limits));
}
