/*
 * Purpose: starts every other target as one process tree, which is then moved as a whole; asks all of them at once.
 *
 * Not among them: client (it must stay behind), fifo (a blocker where one kernel is below both hosts, danger 43), and
 * limit-..., which show what CRIU loses.
 * Each works in a folder of its own name below --dir. One that is not possible here (exit status 77) is left out.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

enum { MAX_MEMBERS = 64, ANSWER_SECONDS = 60 };

struct member {
  char name[64];
  pid_t pid;
};

static const char *const never[] = {"client", "fifo", "all-in-one"}; /* and limit-... */
static const char *left_out[MAX_MEMBERS];
static unsigned left_out_count;
static struct member members[MAX_MEMBERS];
static unsigned member_count;
static char here[PATH_MAX / 2];

static void parse_without(const char *value) {
  if (left_out_count == MAX_MEMBERS) target_usage("too many --without");
  left_out[left_out_count++] = value;
}

static const struct target_option options[] = {
  {"without", "NAME", "leave this target out; repeatable", parse_without},
  {NULL, NULL, NULL, NULL},
};

static bool wanted(const char *name) {
  for (size_t i = 0; i < sizeof never / sizeof *never; i++)
    if (strcmp(name, never[i]) == 0) return false;
  if (strncmp(name, "limit-", 6) == 0) return false;
  for (unsigned i = 0; i < left_out_count; i++)
    if (strcmp(name, left_out[i]) == 0) return false;
  return true;
}

static void path_of(char *path, const char *name, const char *file) {
  if (snprintf(path, PATH_MAX, "%s/%s/%s", here, name, file) >= PATH_MAX) target_usage("the folder's name is too long");
}

/* Half a name is a build under way: `NAME.new`. */
static bool is_program(const char *folder, const char *name) {
  char path[PATH_MAX];
  struct stat facts;
  if (strchr(name, '.') != NULL || strlen(name) >= sizeof members[0].name) return false;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return stat(path, &facts) == 0 && S_ISREG(facts.st_mode) && (facts.st_mode & 0100);
}

static void start(const char *folder, const char *name) {
  char program[PATH_MAX], work[PATH_MAX], control[PATH_MAX], report[PATH_MAX];
  if (member_count == MAX_MEMBERS) target_usage("more than %d targets", MAX_MEMBERS);
  snprintf(program, sizeof program, "%s/%s", folder, name);
  path_of(work, name, "");
  path_of(control, name, "ready");
  path_of(report, name, "report");
  if (mkdir(work, 0755) != 0 && errno != EEXIST) target_die("mkdir %s", work);
  unlink(control);
  struct member *member = &members[member_count++];
  snprintf(member->name, sizeof member->name, "%s", name);
  member->pid = fork();
  if (member->pid < 0) target_die("fork");
  if (member->pid > 0) return;
  execl(program, program, "--dir", work, "--control", control, "--report", report, (char *)NULL);
  target_die("exec %s", program);
}

static void forget(unsigned index) { members[index] = members[--member_count]; }

static void await_ready(void) {
  uint64_t end = target_now() + ANSWER_SECONDS * 1000000000ULL;
  for (unsigned i = 0; i < member_count;) {
    char control[PATH_MAX];
    int status;
    path_of(control, members[i].name, "ready");
    if (access(control, F_OK) == 0) {
      i++;
    } else if (waitpid(members[i].pid, &status, WNOHANG) == members[i].pid) {
      if (!WIFEXITED(status) || WEXITSTATUS(status) != 77) target_usage("%s: status %x", members[i].name, status);
      forget(i);
    } else if (target_now() > end) {
      target_usage("%s is not ready after %d s", members[i].name, ANSWER_SECONDS);
    } else {
      usleep(5000);
    }
  }
}

/* The report of one member: "ok ..." or what is wrong. */
static void read_report(const struct member *member, char *text, size_t size, uint64_t end) {
  char path[PATH_MAX];
  path_of(path, member->name, "report");
  for (;;) {
    int status;
    bool gone = waitpid(member->pid, &status, WNOHANG) != 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
      ssize_t got = read(fd, text, size - 1);
      close(fd);
      text[got < 0 ? 0 : got] = '\0';
      text[strcspn(text, "\n")] = '\0';
      return;
    }
    if (gone || target_now() > end) {
      snprintf(text, size, "%s", gone ? "it has died" : "it does not answer");
      return;
    }
    usleep(5000);
  }
}

static void ask_all(void) {
  char text[900], bad[800] = "", path[PATH_MAX];
  for (unsigned i = 0; i < member_count; i++) {
    path_of(path, members[i].name, "report");
    unlink(path);
    kill(members[i].pid, SIGUSR1);
  }
  uint64_t end = target_now() + ANSWER_SECONDS * 1000000000ULL;
  for (unsigned i = 0; i < member_count; i++) {
    read_report(&members[i], text, sizeof text, end);
    if (strncmp(text, "ok ", 3) == 0) continue;
    size_t used = strlen(bad);
    snprintf(bad + used, sizeof bad - used, "%s%s: %.200s", used == 0 ? "" : "; ", members[i].name, text);
  }
  if (bad[0] != '\0') target_bad("%s", bad);
  target_ok("targets=%u", member_count);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "all targets as one tree", options);
  char folder[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
  if (length < 0 || getcwd(here, sizeof here) == NULL) target_die("folders");
  folder[length] = '\0';
  dirname(folder);
  struct dirent **names;
  int count = scandir(folder, &names, NULL, alphasort);
  if (count < 0) target_die("scandir %s", folder);
  for (int i = 0; i < count; i++) {
    if (is_program(folder, names[i]->d_name) && wanted(names[i]->d_name)) start(folder, names[i]->d_name);
    free(names[i]);
  }
  free(names);
  await_ready();
  target_ready();

  while (target_wait()) ask_all();
  for (unsigned i = 0; i < member_count; i++) kill(members[i].pid, SIGTERM);
  for (unsigned i = 0; i < member_count; i++) waitpid(members[i].pid, NULL, 0);
  return 0;
}
