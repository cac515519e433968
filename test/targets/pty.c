/*
 * Purpose: a pseudo-terminal whose master and whose session both are in the tree: size, modes, controlling terminal.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "common.h"

static int master;
static char *slave_name;

/* Leads a session on the terminal; answers each line with the line and whether it still is its controlling terminal. */
static int session_on_terminal(int socket) {
  close(master);
  setsid();
  int slave = open(slave_name, O_RDWR); /* becomes the controlling terminal: credentials of a leader without one */
  if (slave < 0) return 1;
  struct termios modes;
  tcgetattr(slave, &modes);
  modes.c_lflag &= (tcflag_t) ~(ECHO | ICANON);
  modes.c_cc[VMIN] = 3;
  tcsetattr(slave, TCSANOW, &modes);
  target_write_all(socket, "y", 1);
  char byte;
  while (read(slave, &byte, 1) == 1) {
    bool own = tcgetpgrp(slave) == getpid() && tcgetsid(slave) == getpid();
    int controlling = open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (controlling < 0) own = false;
    else close(controlling);
    char answer[2] = {byte, own ? '+' : '-'};
    target_write_all(slave, answer, 2);
  }
  return 0;
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "a pseudo-terminal with its session inside the tree", NULL);
  int child_pid;
  char byte;
  master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) target_die("pty");
  slave_name = ptsname(master);
  struct winsize size = {.ws_row = 33, .ws_col = 111};
  ioctl(master, TIOCSWINSZ, &size);
  int to_child = target_child(session_on_terminal, &child_pid);
  if (!target_readable(to_child, 5000) || !target_read_all(to_child, &byte, 1)) target_die("session on the pty");
  target_ready();

  while (target_wait()) {
    struct winsize now;
    struct termios modes;
    char answer[7] = {0};
    if (ioctl(master, TIOCGWINSZ, &now) != 0 || now.ws_row != 33 || now.ws_col != 111)
      target_bad("window is %dx%d", now.ws_row, now.ws_col);
    if (tcgetattr(master, &modes) != 0 || (modes.c_lflag & (ECHO | ICANON)) || modes.c_cc[VMIN] != 3)
      target_bad("terminal modes: lflag %x, VMIN %d", modes.c_lflag, modes.c_cc[VMIN]);
    target_write_all(master, "abc", 3);
    for (int i = 0; i < 6; i++)
      if (!target_readable(master, 5000) || read(master, answer + i, 1) != 1) target_bad("terminal answers `%s`", answer);
    if (strcmp(answer, "a+b+c+") != 0) target_bad("terminal answers `%s`", answer);
    target_ok("slave=%s", slave_name);
  }
  return 0;
}
