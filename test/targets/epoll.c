/*
 * Purpose: epoll sets (level, edge, disarmed one-shot, nested) with eventfd, signalfd and pipe.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common.h"

static int outer, inner, counter, second, signals, disarmed, pipe_ends[2];

static void add(int set, int fd, uint32_t events, uint64_t data) {
  struct epoll_event event = {.events = events, .data.u64 = data};
  if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0) target_die("epoll_ctl");
}

/* Bits 1..n of the data words that are ready. */
static unsigned ready(int set) {
  struct epoll_event events[16];
  unsigned bits = 0;
  int count = epoll_wait(set, events, 16, 0);
  for (int i = 0; i < count; i++) {
    uint64_t word = events[i].data.u64;
    if (word >> 8 != 0xabcdef0123456ULL) target_bad("epoll data is %lx", (unsigned long)word);
    bits |= 1u << (word & 0xff);
  }
  return bits;
}

static uint64_t word(unsigned bit) { return (0xabcdef0123456ULL << 8) | bit; }

int main(int argc, char **argv) {
  target_begin(argc, argv, "epoll sets with eventfd, signalfd, pipe", NULL);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  sigprocmask(SIG_BLOCK, &mask, NULL);
  outer = epoll_create1(EPOLL_CLOEXEC);
  inner = epoll_create1(0);
  counter = eventfd(7, EFD_NONBLOCK);
  second = eventfd(3, EFD_NONBLOCK);
  signals = signalfd(-1, &mask, SFD_NONBLOCK);
  disarmed = eventfd(1, EFD_NONBLOCK);
  if (outer < 0 || inner < 0 || counter < 0 || second < 0 || signals < 0 || disarmed < 0 ||
      pipe2(pipe_ends, O_NONBLOCK) != 0)
    target_die("descriptors");
  add(outer, counter, EPOLLIN, word(1));
  add(outer, second, EPOLLIN, word(2));
  add(outer, signals, EPOLLIN, word(3));
  add(outer, disarmed, EPOLLIN | EPOLLONESHOT, word(4));
  add(outer, pipe_ends[0], EPOLLIN | EPOLLET, word(5));
  add(outer, inner, EPOLLIN, word(6));
  add(inner, pipe_ends[1], EPOLLOUT, word(7));
  kill(getpid(), SIGUSR2);
  if (ready(outer) != (1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 6)) target_die("epoll at the start");
  target_ready();

  while (target_wait()) {
    unsigned bits = ready(outer);
    if (bits != (1u << 1 | 1u << 2 | 1u << 3 | 1u << 6)) target_bad("ready set is %x", bits);
    if (ready(inner) != 1u << 7) target_bad("inner set is not ready");
    uint64_t value;
    if (read(counter, &value, 8) != 8 || value != 7) target_bad("eventfd holds %lu", (unsigned long)value);
    if (write(counter, &value, 8) != 8) target_bad("eventfd cannot be written");
    if (read(second, &value, 8) != 8 || value != 3) target_bad("second eventfd holds %lu", (unsigned long)value);
    if (write(second, &value, 8) != 8) target_bad("second eventfd cannot be written");
    struct signalfd_siginfo info;
    if (read(signals, &info, sizeof info) != sizeof info || info.ssi_signo != SIGUSR2) target_bad("signalfd");
    kill(getpid(), SIGUSR2);
    char byte = 'x';
    if (write(pipe_ends[1], &byte, 1) != 1) target_bad("pipe");
    if (!(ready(outer) & 1u << 5)) target_bad("edge-triggered pipe does not report");
    if (ready(outer) & 1u << 5) target_bad("edge-triggered pipe reports twice");
    if (read(pipe_ends[0], &byte, 1) != 1) target_bad("pipe");
    target_ok("sets=2 members=7");
  }
  return 0;
}
