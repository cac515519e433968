/*
 * Purpose: TCP listeners (IPv4, IPv6) keep port, options and backlog, and still accept.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

struct listener {
  int fd;
  struct sockaddr_storage name;
  socklen_t length;
};

static struct listener make(int family) {
  struct listener listener = {.fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), .length = sizeof listener.name};
  int on = 1, idle = 77, buffer = 65536;
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
  if (listener.fd < 0) target_die("socket");
  setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(listener.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(listener.fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
  setsockopt(listener.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(listener.fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  int failed = family == AF_INET ? bind(listener.fd, (struct sockaddr *)&four, sizeof four)
                                 : bind(listener.fd, (struct sockaddr *)&six, sizeof six);
  if (failed != 0 || listen(listener.fd, 33) != 0) target_die("listen");
  getsockname(listener.fd, (struct sockaddr *)&listener.name, &listener.length);
  return listener;
}

static void expect(int fd, int level, int option, int expected, const char *what) {
  int value = -1;
  socklen_t length = sizeof value;
  if (getsockopt(fd, level, option, &value, &length) != 0 || value != expected)
    target_bad("%s is %d, was %d", what, value, expected);
}

static void check(const struct listener *listener) {
  expect(listener->fd, SOL_SOCKET, SO_ACCEPTCONN, 1, "SO_ACCEPTCONN");
  expect(listener->fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
  expect(listener->fd, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE");
  expect(listener->fd, SOL_SOCKET, SO_RCVBUF, 131072, "SO_RCVBUF");
  expect(listener->fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
  expect(listener->fd, IPPROTO_TCP, TCP_KEEPIDLE, 77, "TCP_KEEPIDLE");
  struct tcp_info info;
  socklen_t length = sizeof info;
  if (getsockopt(listener->fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0 || info.tcpi_sacked != 33)
    target_bad("backlog is %u, was 33", info.tcpi_sacked); /* of a listener: inet_csk(sk), tcp_get_info() */

  int fd = socket(listener->name.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, (const struct sockaddr *)&listener->name, listener->length) != 0) target_bad("connect: %s", strerror(errno));
  int other = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
  char byte = 0;
  if (other < 0 || write(fd, "k", 1) != 1 || read(other, &byte, 1) != 1 || byte != 'k') target_bad("accepted connection");
  /* Reset, so that no socket without a process is left behind. */
  struct linger at_once = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close(fd);
  close(other);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "TCP listeners with their options", NULL);
  struct listener four = make(AF_INET), six = make(AF_INET6);
  target_ready();
  while (target_wait()) {
    check(&four);
    check(&six);
    target_ok("port4=%d port6=%d", ntohs(((struct sockaddr_in *)&four.name)->sin_port),
              ntohs(((struct sockaddr_in6 *)&six.name)->sin6_port));
  }
  return 0;
}
