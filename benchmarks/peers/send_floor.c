/* The floor: what the kernel asks for when each event goes to each client with a send() of its own.
 *
 * No protocol: a client that connects gets one byte, "+", and from then on each event's bytes.
 * Events come over one connection to the second port: a length (4 bytes, big-endian), the event.
 * Prints both ports as JSON once it listens.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 65536, BUFFER = 4 * 1024 * 1024 };
static int clients[MOST];
static int count;
static unsigned char buffer[BUFFER];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int listener(int *port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096)) fail("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &size)) fail("getsockname");
    *port = ntohs(address.sin_port);
    return fd;
}

static void greet(int fd) {
    int yes = 1;
    if (fd < 0) fail("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    send(fd, "+", 1, MSG_NOSIGNAL);
    if (count < MOST) clients[count++] = fd;
}

/* Sockets block: who can't be written to holds up the rest, which a floor may. */
static void send_to_all(const unsigned char *event, size_t length) {
    for (int i = 0; i < count; i++) {
        for (size_t done = 0; done < length;) {
            ssize_t sent = send(clients[i], event + done, length - done, MSG_NOSIGNAL);
            if (sent < 0 && errno != EINTR) break; /* gone: the benchmark counts what is missing */
            if (sent > 0) done += (size_t)sent;
        }
    }
}

/* Deliver the whole events in the buffer; return how many bytes are left at its start. */
static size_t deliver(size_t filled) {
    size_t at = 0;
    while (filled - at >= 4) {
        uint32_t length;
        memcpy(&length, buffer + at, 4);
        length = ntohl(length);
        if (length > BUFFER - 4) exit(1);
        if (filled - at - 4 < length) break;
        send_to_all(buffer + at + 4, length);
        at += 4 + length;
    }
    memmove(buffer, buffer + at, filled - at);
    return filled - at;
}

int main(void) {
    int client_port, feed_port;
    size_t filled = 0;
    int doors = listener(&client_port), feed_door = listener(&feed_port);
    struct pollfd watched[3] = {{doors, POLLIN, 0}, {feed_door, POLLIN, 0}, {-1, POLLIN, 0}};
    printf("{\"clients\": %d, \"feed\": %d}\n", client_port, feed_port);
    fflush(stdout);
    for (;;) {
        if (poll(watched, 3, -1) < 0 && errno != EINTR) fail("poll");
        if (watched[0].revents) greet(accept(doors, NULL, NULL));
        if (watched[1].revents) watched[2].fd = accept(feed_door, NULL, NULL);
        if (watched[2].revents) {
            ssize_t got = read(watched[2].fd, buffer + filled, BUFFER - filled);
            if (got > 0) filled = deliver(filled + (size_t)got);
            else watched[2].fd = -1; /* the benchmark is done */
        }
    }
}
