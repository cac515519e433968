/*
 * Purpose: TCP connections among processes of one tree over loopback (danger 17a): busy ones in IPv4 and IPv6, one with
 * full buffers, one that is half closed. Not a byte lost, doubled or out of order.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

struct pair {
  int near, far;
};

struct stream {
  struct pair pair;
  atomic_ulong received;
  const char *_Atomic complaint;
};

static struct stream streams[2];
static struct pair stuffed, half;
static uint64_t stuffed_from, stuffed_to;

static struct pair connect_pair(int family) {
  struct sockaddr_storage name = {.ss_family = (sa_family_t)family};
  socklen_t length = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
  if (family == AF_INET) ((struct sockaddr_in *)&name)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  else ((struct sockaddr_in6 *)&name)->sin6_addr = in6addr_loopback;
  int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct pair pair = {.near = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (bind(listener, (struct sockaddr *)&name, length) != 0 || listen(listener, 1) != 0) target_die("listen");
  getsockname(listener, (struct sockaddr *)&name, &length);
  if (connect(pair.near, (struct sockaddr *)&name, length) != 0) target_die("connect");
  pair.far = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  close(listener);
  if (pair.far < 0) target_die("accept");
  return pair;
}

/* The child sends 1, 2, 3, ... over both streams, in small and large writes. */
static int send_streams(int socket) {
  uint64_t next = 1;
  uint64_t words[512];
  close(streams[0].pair.far);
  close(streams[1].pair.far);
  while (!target_readable(socket, 0)) {
    size_t count = 1 + target_mix(next) % 512;
    for (size_t i = 0; i < count; i++) words[i] = next++;
    for (int i = 0; i < 2; i++) {
      size_t length = count * sizeof *words, done = 0;
      while (done < length) {
        ssize_t sent = send(streams[i].pair.near, (char *)words + done, length - done, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return 1;
        done += (size_t)sent;
      }
    }
    usleep(1000);
  }
  return 0;
}

static void *receive_stream(void *argument) {
  struct stream *stream = argument;
  for (uint64_t expected = 1, word;; expected++) {
    if (!target_read_all(stream->pair.far, &word, sizeof word)) {
      stream->complaint = errno == 0 ? "closed" : strerror(errno);
      return NULL;
    }
    if (word != expected) {
      stream->complaint = "a word is not the next one";
      return NULL;
    }
    atomic_store(&stream->received, expected);
  }
}

static char stuffing(uint64_t offset) { return (char)(target_mix(offset / 8) >> (8 * (offset % 8))); }

/* Until neither the send nor the receive buffer takes a byte more. */
static void stuff(void) {
  char data[4096];
  for (;;) {
    for (size_t i = 0; i < sizeof data; i++) data[i] = stuffing(stuffed_to + i);
    ssize_t sent = send(stuffed.near, data, sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) target_bad("stuffed connection: %s", strerror(errno));
    stuffed_to += (uint64_t)sent;
  }
}

static void drain(void) {
  char data[4096];
  while (stuffed_from < stuffed_to) {
    ssize_t got = target_readable(stuffed.far, 5000) ? recv(stuffed.far, data, sizeof data, MSG_DONTWAIT) : -1;
    if (got <= 0)
      target_bad("stuffed connection: silent at byte %lu of %lu", (unsigned long)stuffed_from, (unsigned long)stuffed_to);
    for (ssize_t i = 0; i < got; i++, stuffed_from++)
      if (data[i] != stuffing(stuffed_from)) target_bad("stuffed connection: byte %lu", (unsigned long)stuffed_from);
  }
}

static void check_streams(void) {
  for (int i = 0; i < 2; i++) {
    unsigned long before = atomic_load(&streams[i].received);
    uint64_t end = target_now() + 10000000000ULL;
    while (atomic_load(&streams[i].received) < before + 1000 && target_now() < end && streams[i].complaint == NULL)
      usleep(2000);
    if (streams[i].complaint != NULL) target_bad("stream %d after word %lu: %s", i, before, streams[i].complaint);
    if (atomic_load(&streams[i].received) < before + 1000) target_bad("stream %d is stuck at word %lu", i, before);
  }
}

static void check_half_closed(void) {
  char text[8] = {0};
  if (target_readable(half.far, 0) && recv(half.far, text, 1, MSG_DONTWAIT) != 0) target_bad("half closed: no end");
  if (send(half.far, "still", 5, MSG_NOSIGNAL) != 5) target_bad("half closed: %s", strerror(errno));
  if (!target_readable(half.near, 5000) || recv(half.near, text, 5, MSG_WAITALL) != 5 || strcmp(text, "still") != 0)
    target_bad("half closed connection does not carry data in the open direction");
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "TCP connections inside the tree over loopback", NULL);
  int child_pid;
  pthread_t thread;
  streams[0].pair = connect_pair(AF_INET);
  streams[1].pair = connect_pair(AF_INET6);
  stuffed = connect_pair(AF_INET);
  half = connect_pair(AF_INET);
  shutdown(half.near, SHUT_WR);
  target_child(send_streams, &child_pid);
  for (int i = 0; i < 2; i++) {
    close(streams[i].pair.near);
    if (pthread_create(&thread, NULL, receive_stream, &streams[i]) != 0) target_die("thread");
  }
  stuff();
  target_ready();

  while (target_wait()) {
    check_streams();
    drain();
    stuff();
    check_half_closed();
    target_ok("words=%lu,%lu stuffed=%lu", atomic_load(&streams[0].received), atomic_load(&streams[1].received),
              (unsigned long)stuffed_to);
  }
  return 0;
}
