/*
 * Purpose: UDP sockets (bound, connected, IPv4 and IPv6) keep ports, peers and options, and still carry datagrams.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

struct couple {
  int inbox, sender;
  int port;
};

static int port_of(int fd) {
  struct sockaddr_in6 name;
  socklen_t length = sizeof name;
  getsockname(fd, (struct sockaddr *)&name, &length);
  return ntohs(name.sin6_port); /* at the same offset as sin_port */
}

static struct couple make(int family) {
  struct sockaddr_storage name = {.ss_family = (sa_family_t)family};
  socklen_t length = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
  if (family == AF_INET) ((struct sockaddr_in *)&name)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  else ((struct sockaddr_in6 *)&name)->sin6_addr = in6addr_loopback;
  struct couple couple = {socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0), socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0), 0};
  if (bind(couple.inbox, (struct sockaddr *)&name, length) != 0) target_die("bind");
  getsockname(couple.inbox, (struct sockaddr *)&name, &length);
  if (connect(couple.sender, (struct sockaddr *)&name, length) != 0) target_die("connect");
  int on = 1;
  setsockopt(couple.inbox, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
  couple.port = port_of(couple.inbox);
  return couple;
}

static void check(const struct couple *couple) {
  char text[16] = {0};
  int on = 0;
  socklen_t length = sizeof on;
  if (port_of(couple->inbox) != couple->port) target_bad("port is %d, was %d", port_of(couple->inbox), couple->port);
  getsockopt(couple->inbox, SOL_SOCKET, SO_BROADCAST, &on, &length);
  if (on != 1) target_bad("SO_BROADCAST is off");
  if (send(couple->sender, "datagram", 8, 0) != 8) target_bad("send: %s", strerror(errno));
  if (!target_readable(couple->inbox, 5000) || recv(couple->inbox, text, sizeof text, 0) != 8 ||
      strcmp(text, "datagram") != 0)
    target_bad("datagram did not arrive: `%s`", text);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "UDP sockets", NULL);
  struct couple four = make(AF_INET), six = make(AF_INET6);
  target_ready();
  while (target_wait()) {
    check(&four);
    check(&six);
    target_ok("port4=%d port6=%d", four.port, six.port);
  }
  return 0;
}
