/*
 * Purpose: sessions and process groups: a child that leads its session, groups inside it, a group whose leader is dead.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

static int inner_pid;

static bool answer(int socket, pid_t session, pid_t group) {
  char question;
  if (!target_read_all(socket, &question, 1)) return false;
  char reply = getsid(0) != session ? 's' : getpgrp() != group ? 'g' : 'y';
  target_write_all(socket, &reply, 1);
  return true;
}

static int in_a_group_of_its_own(int socket) {
  pid_t session = getsid(0);
  setpgid(0, 0);
  while (answer(socket, session, getpid())) continue;
  return 0;
}

static int session_leader(int socket) {
  setsid();
  int to_inner = target_child(in_a_group_of_its_own, &inner_pid);
  if (target_ask_child(to_inner, '?') != 'y') return 1;
  for (;;) {
    char question;
    if (!target_read_all(socket, &question, 1)) return 0;
    char reply = getsid(0) != getpid() || getpgrp() != getpid() ? 's' : (char)target_ask_child(to_inner, '?');
    target_write_all(socket, &reply, 1);
  }
}

static pid_t group_of_a_dead_leader;

static int in_a_dead_leaders_group(int socket) {
  pid_t session = getsid(0);
  if (setpgid(0, group_of_a_dead_leader) != 0) return 1;
  while (answer(socket, session, group_of_a_dead_leader)) continue;
  return 0;
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "sessions, process groups, a group whose leader is dead", NULL);
  int leader_pid, orphan_pid, dead_leader;
  pid_t session = getsid(0), group = getpgrp();
  int to_leader = target_child(session_leader, &leader_pid);
  int to_dead_leader = target_child(in_a_group_of_its_own, &dead_leader);
  if (target_ask_child(to_dead_leader, '?') != 'y') target_die("group leader");
  group_of_a_dead_leader = dead_leader;
  int to_orphan = target_child(in_a_dead_leaders_group, &orphan_pid);
  if (target_ask_child(to_orphan, '?') != 'y' || target_ask_child(to_leader, '?') != 'y') target_die("children");
  shutdown(to_dead_leader, SHUT_RDWR); /* not close(): the list of children's sockets may close that number again */
  waitpid(dead_leader, NULL, 0);
  target_ready();

  while (target_wait()) {
    if (getsid(0) != session || getpgrp() != group) target_bad("own session or group changed");
    int answer_of_leader = target_ask_child(to_leader, '?');
    if (answer_of_leader != 'y') target_bad("session leader: %c", answer_of_leader < 0 ? '-' : answer_of_leader);
    int answer_of_orphan = target_ask_child(to_orphan, '?');
    if (answer_of_orphan != 'y') target_bad("member of a dead leader's group: %c", answer_of_orphan);
    if (kill(-group_of_a_dead_leader, 0) != 0) target_bad("the dead leader's group cannot be signalled");
    target_ok("session=%d leader=%d group=%d", (int)session, leader_pid, (int)group_of_a_dead_leader);
  }
  return 0;
}
