/*
 * Purpose: a tree keeps its shape: child, grandchild, a zombie with its exit status, a stopped child.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

static pid_t expected_parent;
static int grandchild_pid;
static int grandchild_socket;

/* Answers 'y' if its parent is who it was. */
static int answer_questions(int socket) {
  char question;
  pid_t parent = expected_parent;
  while (target_read_all(socket, &question, 1)) {
    char answer = getppid() == parent ? 'y' : 'n';
    target_write_all(socket, &answer, 1);
  }
  return 0;
}

static int child(int socket) {
  char question;
  pid_t parent = expected_parent;
  expected_parent = getpid();
  grandchild_socket = target_child(answer_questions, &grandchild_pid);
  while (target_read_all(socket, &question, 1)) {
    char answer = getppid() == parent ? 'y' : 'n';
    if (target_ask_child(grandchild_socket, '?') != 'y') answer = 'g';
    target_write_all(socket, &answer, 1);
  }
  return 0;
}

static void await_state(pid_t pid, char state) {
  for (int i = 0; i < 2000 && target_state(pid) != state; i++) usleep(1000);
  if (target_state(pid) != state) target_bad("process %d is in state %c, not %c", pid, target_state(pid), state);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "child, grandchild, zombie, stopped child", NULL);
  int child_pid, stopped_pid;
  expected_parent = getpid();
  int to_child = target_child(child, &child_pid);
  int to_stopped = target_child(answer_questions, &stopped_pid);
  pid_t zombie = fork();
  if (zombie == 0) _exit(42);
  pid_t killed = fork();
  if (killed == 0) {
    kill(getpid(), SIGKILL);
    pause();
  }
  if (target_ask_child(to_child, '?') != 'y' || target_ask_child(to_stopped, '?') != 'y') target_die("children");
  kill(stopped_pid, SIGSTOP);
  await_state(stopped_pid, 'T');
  await_state(zombie, 'Z');
  await_state(killed, 'Z');
  target_ready();

  while (target_wait()) {
    siginfo_t info;
    if (target_state(zombie) != 'Z') target_bad("the zombie is in state %c", target_state(zombie));
    memset(&info, 0, sizeof info);
    if (waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != zombie ||
        info.si_code != CLD_EXITED || info.si_status != 42)
      target_bad("zombie: waitid gives pid %d code %d status %d", info.si_pid, info.si_code, info.si_status);
    memset(&info, 0, sizeof info);
    if (waitid(P_PID, (id_t)killed, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != killed ||
        info.si_code != CLD_KILLED || info.si_status != SIGKILL)
      target_bad("killed child: waitid gives pid %d code %d status %d", info.si_pid, info.si_code, info.si_status);
    int answer = target_ask_child(to_child, '?');
    if (answer != 'y') target_bad("child answers %c", answer < 0 ? '-' : answer);
    if (target_state(stopped_pid) != 'T') target_bad("the stopped child is in state %c", target_state(stopped_pid));
    kill(stopped_pid, SIGCONT);
    if (target_ask_child(to_stopped, '?') != 'y') target_bad("the stopped child does not go on");
    kill(stopped_pid, SIGSTOP);
    await_state(stopped_pid, 'T');
    target_ok("child=%d stopped=%d zombies=%d,%d", child_pid, stopped_pid, zombie, killed);
  }
  return 0;
}
