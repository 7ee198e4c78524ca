/* The wire between shaped hosts: delay, loss, and each host's downlink with a queue of its own.
 *
 * links.py makes the hosts, their TUN devices and their uplinks (tc tbf), compiles this and starts
 * it:
 *
 *     links COUNTERS SEED DELAY_NS LOSS  FD DOWNLINK QUEUE  FD DOWNLINK QUEUE ...
 *
 * FD is the far end of host number 0, 1, ... (inherited), DOWNLINK its bits per second (0: no
 * limit), QUEUE the bytes that may wait for it. Host n has the IPv4 address that ends in n + 1.
 * Every packet takes the same DELAY_NS, so what goes to one host is due in the order it came: one
 * ring per host, and no heap. COUNTERS is a file of 64-bit numbers, mapped, see `struct counters`.
 * Ends when standard input does, or at a signal.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { HOSTS = 64, MTU = 1500, SLOTS = 8192, PER_TURN = 32 };
static const uint64_t SECOND = 1000000000, EARLY_NS = 50000, LATE_NS = 2000000;

struct packet {
    uint64_t due;
    int size;
    unsigned char bytes[MTU];
};

/* What a host sent and got, and what was lost on its way to it: by chance, by a full queue. */
struct counters {
    uint64_t sent, received, lost, dropped;
};

struct host {
    int fd;
    double ns_per_byte;
    uint64_t queue_ns, busy_until;
    struct packet *ring;
    unsigned first, count;
};

static struct host hosts[HOSTS];
static int hosts_count;
static uint64_t *late; /* packets delivered, and how many of them LATE_NS too late or more */
static struct counters *counted;
static uint64_t delay_ns, chance = 88172645463325252u;
static double loss;

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

/* Xorshift: from 0 up to 1. */
static double draw(void)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (double)(chance >> 11) / (double)(UINT64_C(1) << 53);
}

/* Hand over what is due. */
static void deliver(int number, uint64_t now)
{
    struct host *host = &hosts[number];
    while (host->count) {
        struct packet *packet = &host->ring[host->first];
        if (packet->due > now + EARLY_NS)
            return;
        if (write(host->fd, packet->bytes, (size_t)packet->size) == packet->size)
            counted[number].received += (uint64_t)packet->size;
        late[0]++;
        if (now > packet->due + LATE_NS)
            late[1]++;
        host->first = (host->first + 1) % SLOTS;
        host->count--;
    }
}

/* Take one packet from a host; return 0 if there is none. */
static int take(int number)
{
    unsigned char bytes[MTU];
    ssize_t size = read(hosts[number].fd, bytes, MTU);
    if (size <= 0)
        return 0;
    if (size < 20 || bytes[0] >> 4 != 4)
        return 1; /* IPv6's own chatter */
    int target = bytes[18] << 8 | bytes[19];
    if (target < 1 || target > hosts_count)
        return 1; /* multicast */
    struct host *host = &hosts[--target];
    counted[number].sent += (uint64_t)size;
    if (loss > 0 && draw() < loss) {
        counted[target].lost++;
        return 1;
    }
    uint64_t arrives = now_ns() + delay_ns;
    uint64_t starts = host->busy_until > arrives ? host->busy_until : arrives;
    if (host->count == SLOTS || (host->ns_per_byte > 0 && starts - arrives > host->queue_ns)) {
        counted[target].dropped++;
        return 1;
    }
    struct packet *packet = &host->ring[(host->first + host->count++) % SLOTS];
    memcpy(packet->bytes, bytes, (size_t)size);
    packet->size = (int)size;
    packet->due = host->busy_until = starts + (uint64_t)((double)size * host->ns_per_byte);
    return 1;
}

/* Return how long nothing is due, at most a second. */
static uint64_t idle_ns(uint64_t now)
{
    uint64_t least = now + SECOND;
    for (int n = 0; n < hosts_count; n++)
        if (hosts[n].count && hosts[n].ring[hosts[n].first].due < least)
            least = hosts[n].ring[hosts[n].first].due;
    return least > now + EARLY_NS ? least - now : 0;
}

int main(int argc, char **argv)
{
    if (argc < 8 || (argc - 5) % 3 || (argc - 5) / 3 > HOSTS)
        return 2;
    int file = open(argv[1], O_RDWR);
    size_t size = (HOSTS * 4 + 2) * sizeof(uint64_t);
    late = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (late == MAP_FAILED)
        return 1;
    counted = (struct counters *)(late + 2);
    chance ^= strtoull(argv[2], NULL, 10) * UINT64_C(2654435761);
    delay_ns = strtoull(argv[3], NULL, 10);
    loss = atof(argv[4]);
    struct pollfd polled[HOSTS + 1];
    for (int at = 5; at < argc; at += 3, hosts_count++) {
        struct host *host = &hosts[hosts_count];
        host->fd = atoi(argv[at]);
        double rate = atof(argv[at + 1]);
        host->ns_per_byte = rate > 0 ? 8e9 / rate : 0;
        host->queue_ns = (uint64_t)(atof(argv[at + 2]) * host->ns_per_byte);
        host->ring = malloc(SLOTS * sizeof(struct packet));
        if (!host->ring)
            return 1;
        polled[hosts_count] = (struct pollfd){.fd = host->fd, .events = POLLIN};
    }
    polled[hosts_count] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    prctl(PR_SET_TIMERSLACK, 1000);
    /* A wire does not wait for the machines it connects; without the right to it, it has to. */
    sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1});
    puts("ready");
    fflush(stdout);
    while (!polled[hosts_count].revents) {
        uint64_t wait = idle_ns(now_ns());
        struct timespec timeout = {(time_t)(wait / SECOND), (long)(wait % SECOND)};
        ppoll(polled, (nfds_t)hosts_count + 1, &timeout, NULL);
        for (int n = 0; n < hosts_count; n++) {
            if (polled[n].revents & POLLIN)
                for (int turn = 0; turn < PER_TURN && take(n); turn++)
                    ;
        }
        uint64_t now = now_ns();
        for (int n = 0; n < hosts_count; n++)
            deliver(n, now);
    }
    return 0;
}
