/*
 * Purpose: a child with another root folder (chroot) keeps it, and its working folder in there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

static int in_another_root(int socket) {
  char question;
  if (chroot("root") != 0 || chdir("/inside") != 0) return 1;
  while (target_read_all(socket, &question, 1)) {
    char path[64] = "", answer = 'y';
    if (access("/marker", F_OK) != 0 || access("/proc/self", F_OK) == 0) answer = 'r';
    if (getcwd(path, sizeof path) == NULL || strcmp(path, "/inside") != 0) answer = 'c';
    target_write_all(socket, &answer, 1);
  }
  return 0;
}

static void make_folder(const char *name) {
  if (mkdir(name, 0755) != 0 && errno != EEXIST) target_die("mkdir %s", name);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "another root folder", NULL);
  int child_pid;
  make_folder("root");
  make_folder("root/inside");
  int marker = open("root/marker", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (marker < 0) target_die("marker");
  close(marker);
  int to_child = target_child(in_another_root, &child_pid);
  if (target_ask_child(to_child, '?') != 'y') target_die("chroot");
  target_ready();
  while (target_wait()) {
    int answer = target_ask_child(to_child, '?');
    if (answer != 'y') target_bad("child in another root says %c", answer < 0 ? '-' : answer);
    target_ok("child=%d", child_pid);
  }
  return 0;
}
