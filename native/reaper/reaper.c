/*
 * Pid 1 of a host in namespaces of its own: reaps every orphan, for ever, and ends at SIGTERM. Its end kills the whole
 * namespace. A Ctrl-C meant for the programs beside it passes by: pid 1 gets no signal that it has not asked for
 * (pid_namespaces(7)), and it asks for none but these.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

int main(void) {
  sigset_t awaited;
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGCHLD);
  sigaddset(&awaited, SIGTERM);
  if (sigprocmask(SIG_BLOCK, &awaited, NULL) != 0) return EXIT_FAILURE;
  for (;;) {
    /* Before the first wait too: children that ended before the signals were blocked. */
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    int signal;
    if (sigwait(&awaited, &signal) == 0 && signal != SIGCHLD) return EXIT_SUCCESS;
  }
}
