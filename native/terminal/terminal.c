/*
 * Leads a session with a terminal of its own for a job that CRIU restores with shell_job: such a job comes back to the
 * terminal and the session from which CRIU was started (criu(8), --shell-job), and it would lose both if CRIU itself led
 * the session. Prints the pid of PROGRAM, throws away what the job writes, and ends when nobody has the terminal open.
 *
 *     phaul-terminal PROGRAM [ARGUMENT...]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Exit codes as in sh(1). */
enum { NO_TERMINAL = 125, NOT_EXECUTABLE = 126 };

/* Until the last descriptor of the other side is closed: then read() says EIO (pty(7)). */
static void drain(int master) {
  char thrown_away[4096];
  for (;;) {
    ssize_t got = read(master, thrown_away, sizeof thrown_away);
    if (got == 0 || (got < 0 && errno != EINTR)) return;
  }
}

static void become(char **program, int slave) {
  int null_device = open("/dev/null", O_WRONLY);
  dup2(slave, STDIN_FILENO);
  if (null_device >= 0) dup2(null_device, STDOUT_FILENO);
  execvp(program[0], program);
  _exit(NOT_EXECUTABLE);
}

int main(int argc, char **argv) {
  if (argc < 2) return NO_TERMINAL;
  if (getsid(0) != getpid() && setsid() < 0) return NO_TERMINAL;
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) return NO_TERMINAL;
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (slave < 0 || ioctl(slave, TIOCSCTTY, 0) != 0) return NO_TERMINAL;

  pid_t child = fork();
  if (child < 0) return NO_TERMINAL;
  if (child == 0) become(argv + 1, slave);

  printf("%d\n", (int)child);
  fflush(stdout);
  /* The conversation with CRIU must end when CRIU does: its socket may not live on here. */
  if (dup2(master, STDIN_FILENO) < 0 || close_range(1, ~0u, 0) != 0) return NO_TERMINAL;
  signal(SIGCHLD, SIG_IGN); /* children are reaped by the kernel from now on: wait(2) */
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
  if (chdir("/") != 0) return NO_TERMINAL;
  drain(STDIN_FILENO);
  return EXIT_SUCCESS;
}
