/*
 * What every target shares: the command line, the ready line, the report, pages whose every byte can be checked.
 *
 * A target sets itself up, calls target_ready() (one line `ready PID`), then waits. SIGUSR1 asks it to verify its own
 * state: it writes `ok <details>` or `bad <what>` to its report file. SIGTERM ends it. A violation makes its exit
 * status 1. The pid in the ready line is what the target itself sees, in its own pid namespace.
 */
#ifndef PHAUL_TARGET_COMMON_H
#define PHAUL_TARGET_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TARGET_PAGE = 4096 };

/** Extra option of one target; the value is handed to `parse`, which exits by target_usage() if it is wrong. */
struct target_option {
  const char *name;
  /** What the value is, for --help; NULL: the option takes none. */
  const char *value;
  const char *help;
  void (*parse)(const char *value);
};

/**
 * Reads --control FILE, --report FILE, --help and the target's own options (a table that ends with a NULL name, or
 * NULL), and blocks SIGUSR1 and SIGTERM, so that no later moment can lose them. Threads and children inherit that.
 */
void target_begin(int argc, char **argv, const char *purpose, const struct target_option *options);

/** Prints the ready line to the control file, or to standard output. */
void target_ready(void);

/** Waits for the next order: true: verify now (SIGUSR1); false: end (SIGTERM). */
bool target_wait(void);

/** Writes the report `ok ...`: whole or not at all, a reader never sees half a line. */
void target_ok(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Writes the report `bad ...` and ends the process with status 1. */
void target_bad(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/** Writes a report line without ending the process; for servers, whose clients must see the rest. */
void target_report(bool ok, const char *text);

/** A set-up step that failed: message with errno to standard error, exit status 2. */
void target_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/** A wrong command line: message, exit status 64. */
void target_usage(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/** Value of a decimal option; exits by target_usage() if it is not within the range. */
long target_number(const char *text, long min, long max);

/** A well mixed 64-bit function (the finalizer of SplitMix64): equal in all targets and in the client. */
uint64_t target_mix(uint64_t value);

/** Content of a page is a function of (seed, index, generation): each of its bytes can be told from the outside. */
void target_page_fill(void *page, uint64_t seed, uint64_t index, uint64_t generation);

/** Whether all 4096 bytes are what target_page_fill() wrote. */
bool target_page_check(const void *page, uint64_t seed, uint64_t index, uint64_t generation);

/** CLOCK_MONOTONIC in nanoseconds. */
uint64_t target_now(void);

/** write() of everything, or target_die(). */
void target_write_all(int fd, const void *data, size_t length);

/** read() of exactly `length` bytes; false at the end of the file or an error (errno is 0 at the end). */
bool target_read_all(int fd, void *data, size_t length);

/** The report's path, or NULL; with a suffix for a helper process of the target. */
const char *target_report_path(void);

#endif
