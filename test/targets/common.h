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
 * Reads --control FILE, --report FILE, --dir DIR, --help and the target's own options (a table that ends with a NULL
 * name, or NULL), goes to the folder, and blocks SIGUSR1 and SIGTERM, so that no later moment can lose them. Threads and children inherit that.
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

/** What the target shows is not possible on this machine: message, exit status 77. */
void target_skip(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

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

/**
 * A child of the target, forked with a socket pair to its parent: `body(socket)` runs in the child, which then exits
 * with its result. SIGUSR1 stays blocked in it, SIGTERM and the parent's death do not matter: it ends when it reads the
 * end of its socket. Returns the parent's end; the pid is stored.
 */
int target_child(int (*body)(int socket), int *pid);

/** Sends one byte to a child and waits at most 10 s for its one-byte answer; -1: none came. */
int target_ask_child(int socket, char question);

/** Whether the descriptor becomes readable within `ms`. */
bool target_readable(int fd, int ms);

/** One line `key: value` of /proc/PID/status into `value` (pid 0: self); false if there is none. */
bool target_status_line(int pid, const char *key, char *value, size_t size);

/** The state letter of a process (R, S, T, Z ...), '?' if it does not exist. */
char target_state(int pid);

#endif
