// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Both sides of TCP conversations, for measuring a path:
 *
 *   serve PORT                                answers on PORT, until it is ended
 *   stream ADDRESS PORT STREAMS SECONDS       sends as fast as it can
 *   connect ADDRESS PORT THREADS SECONDS      connects, asks, is answered, closes
 *   ask ADDRESS PORT CONNECTIONS SECONDS      asks and is answered, on kept connections
 *
 * A client prints: how many (bytes, conversations, answers), seconds, and the 50th and
 * 99th percentile of one in nanoseconds (0 for a stream). What a client first sends says
 * what it wants: 's' to be read, anything else to be answered byte by byte.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STREAM 's'
#define ASK 'a'
#define BLOCK (128 * 1024)
#define THREADS_MAX 64
#define SAMPLES_MAX (1 << 20)

struct client {
	pthread_t thread;
	struct sockaddr_in to;
	char kind;
	double seconds;
	unsigned long long done; /* bytes or answers */
	unsigned *samples; /* nanoseconds */
	unsigned count;
};

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "conversations: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static void set(int fd, int level, int option)
{
	int one = 1;

	if (setsockopt(fd, level, option, &one, sizeof(one)))
		fail("setsockopt");
}

static void *answer(void *argument)
{
	int fd = (int)(long)argument;
	char *block = malloc(BLOCK);
	ssize_t size = block ? recv(fd, block, BLOCK, 0) : -1;
	char kind = size > 0 ? block[0] : 0;

	while (size > 0) {
		if (kind != STREAM && send(fd, block, size, MSG_NOSIGNAL) < 0)
			break;
		size = recv(fd, block, BLOCK, 0);
	}
	free(block);
	close(fd);
	return 0;
}

static void serve(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	pthread_attr_t detached;

	set(listener, SOL_SOCKET, SO_REUSEADDR);
	if (bind(listener, (void *)&at, sizeof(at)) || listen(listener, 4096))
		fail("listen");
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&detached, 1 << 16);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int fd = accept(listener, 0, 0);
		pthread_t thread;

		if (fd < 0)
			fail("accept");
		set(fd, IPPROTO_TCP, TCP_NODELAY);
		if (pthread_create(&thread, &detached, answer, (void *)(long)fd))
			close(fd);
	}
}

static int dial(const struct client *client)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, (void *)&client->to, sizeof(client->to)))
		fail("connect");
	set(fd, IPPROTO_TCP, TCP_NODELAY);
	return fd;
}

static void note(struct client *client, double begun)
{
	client->done++;
	if (client->count < SAMPLES_MAX)
		client->samples[client->count++] = (now() - begun) * 1e9;
}

static void ask(int fd)
{
	char byte = ASK;

	if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1)
		fail("ask");
}

static void send_blocks(struct client *client, int fd)
{
	static char block[BLOCK] = { STREAM };
	ssize_t size = send(fd, block, BLOCK, MSG_NOSIGNAL);

	if (size < 0)
		fail("send");
	client->done += size;
}

static void *converse(void *argument)
{
	struct client *client = argument;
	double end = now() + client->seconds;
	int fd = client->kind == 'c' ? -1 : dial(client);

	while (now() < end) {
		double begun = now();

		if (client->kind == 's') {
			send_blocks(client, fd);
		} else if (client->kind == 'a') {
			ask(fd);
			note(client, begun);
		} else {
			/* Closed by a reset: else its port waits for a minute. */
			struct linger linger = { .l_onoff = 1 };

			fd = dial(client);
			ask(fd);
			note(client, begun);
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
			close(fd);
		}
	}
	return 0;
}

static int compare(const void *one, const void *other)
{
	unsigned a = *(const unsigned *)one, b = *(const unsigned *)other;

	return (a > b) - (a < b);
}

static void report(struct client *clients, int count, double seconds)
{
	unsigned long long done = 0;
	unsigned total = 0, filled = 0, *all;

	for (int i = 0; i < count; i++) {
		done += clients[i].done;
		total += clients[i].count;
	}
	all = malloc((total + 1) * sizeof(*all));
	if (!all)
		fail("malloc");
	all[0] = 0;
	for (int i = 0; i < count; i++) {
		memcpy(all + filled, clients[i].samples, clients[i].count * sizeof(*all));
		filled += clients[i].count;
	}
	qsort(all, total, sizeof(*all), compare);
	printf("%llu %.6f %u %u\n", done, seconds, all[total / 2],
	       all[(unsigned long long)total * 99 / 100]);
}

int main(int count, char **words)
{
	static struct client clients[THREADS_MAX];
	int threads;
	double begun;

	signal(SIGPIPE, SIG_IGN);
	if (count == 3 && !strcmp(words[1], "serve"))
		serve(atoi(words[2]));
	if (count != 6 || (threads = atoi(words[4])) < 1 || threads > THREADS_MAX)
		return 2;
	begun = now();
	for (int i = 0; i < threads; i++) {
		struct client *client = &clients[i];

		client->to.sin_family = AF_INET;
		client->to.sin_port = htons(atoi(words[3]));
		inet_pton(AF_INET, words[2], &client->to.sin_addr);
		client->kind = words[1][0];
		client->seconds = atof(words[5]);
		client->samples = malloc(SAMPLES_MAX * sizeof(unsigned));
		if (!client->samples || pthread_create(&client->thread, 0, converse, client))
			fail("pthread_create");
	}
	for (int i = 0; i < threads; i++)
		pthread_join(clients[i].thread, 0);
	report(clients, threads, now() - begun);
	return 0;
}
