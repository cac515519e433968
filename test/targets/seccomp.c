/*
 * Purpose: seccomp filters (two, stacked) and no_new_privs still hold.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

static void forbid(int call, int error) {
  struct sock_filter code[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) target_skip("this kernel has no seccomp filters");
}

static void expect(int call, int error, const char *what) {
  errno = 0;
  if (syscall(call, NULL, NULL, NULL) != -1 || errno != error) target_bad("%s: %s", what, strerror(errno));
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "seccomp filters", NULL);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) target_die("no_new_privs");
  forbid(SYS_mincore, EXDEV);
  forbid(SYS_times, ENOTBLK);
  target_ready();
  while (target_wait()) {
    char mode[16] = "?", filters[16] = "?";
    expect(SYS_mincore, EXDEV, "first filter");
    expect(SYS_times, ENOTBLK, "second filter");
    if (getppid() < 0) target_bad("a call that is allowed");
    if (!target_status_line(0, "Seccomp", mode, sizeof mode) || strcmp(mode, "2") != 0) target_bad("mode %s", mode);
    if (target_status_line(0, "Seccomp_filters", filters, sizeof filters) && strcmp(filters, "2") != 0)
      target_bad("%s filters", filters);
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) target_bad("no_new_privs is off");
    target_ok("filters=2");
  }
  return 0;
}
