/*
 * Leads a session with a terminal of its own for a job that CRIU restores with shell_job: such a job comes back to the
 * terminal and the session from which CRIU was started (criu(8), --shell-job), and it would lose both if CRIU itself led
 * the session. Prints the pid of PROGRAM, throws away what the job writes (or appends it to FILE), and ends when nobody
 * has the terminal open.
 *
 *     phaul-terminal [--output FILE] PROGRAM [ARGUMENT...]
 *
 * Without PROGRAM it prints the path of its terminal instead, for whoever wants to open it, and holds the terminal open
 * itself until the end of its standard input.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Exit codes as in sh(1). */
enum { NO_OUTPUT = 124, NO_TERMINAL = 125, NOT_EXECUTABLE = 126 };

/*
 * Keeps the two descriptors alone: the conversation with CRIU must end when CRIU does, its socket may not live on here.
 * Then copies until the last descriptor of the other side is closed: read() says EIO then (pty(7)). A full disk costs
 * output, not the terminal.
 */
static int drain(int master, int output) {
  char written[4096];
  if (dup2(master, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0) return NO_TERMINAL;
  if (close_range(2, ~0u, 0) != 0 || chdir("/") != 0) return NO_TERMINAL;
  for (;;) {
    ssize_t got = read(STDIN_FILENO, written, sizeof written);
    if (got == 0 || (got < 0 && errno != EINTR)) return EXIT_SUCCESS;
    if (got > 0 && write(STDOUT_FILENO, written, (size_t)got) < 0) continue;
  }
}

static void become(char **program, int slave) {
  int null_device = open("/dev/null", O_WRONLY);
  dup2(slave, STDIN_FILENO);
  if (null_device >= 0) dup2(null_device, STDOUT_FILENO);
  execvp(program[0], program);
  _exit(NOT_EXECUTABLE);
}

static void wait_for_end_of_input(void) {
  char nothing;
  ssize_t got;
  do got = read(STDIN_FILENO, &nothing, 1);
  while (got > 0 || (got < 0 && errno == EINTR));
}

int main(int argc, char **argv) {
  const char *file = "/dev/null";
  int first = 1;
  if (argc > 2 && strcmp(argv[1], "--output") == 0) {
    file = argv[2];
    first = 3;
  }
  int output = open(file, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_CLOEXEC, 0600);
  if (output < 0) return NO_OUTPUT;
  if (getsid(0) != getpid() && setsid() < 0) return NO_TERMINAL;
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) return NO_TERMINAL;
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (slave < 0) return NO_TERMINAL;

  if (argc == first) {
    puts(ptsname(master));
    fflush(stdout);
    wait_for_end_of_input();
    return drain(master, output);
  }
  if (ioctl(slave, TIOCSCTTY, 0) != 0) return NO_TERMINAL;
  pid_t child = fork();
  if (child < 0) return NO_TERMINAL;
  if (child == 0) become(argv + first, slave);
  printf("%d\n", (int)child);
  fflush(stdout);
  signal(SIGCHLD, SIG_IGN); /* children are reaped by the kernel from now on: wait(2) */
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
  return drain(master, output);
}
