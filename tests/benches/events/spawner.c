/* spawner SECONDS RATE PROGRAM: starts a program that ends at once RATE times
 * per second, or as often as the machine can, for some seconds. Prints how
 * often that was. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	char *nothing[] = { NULL };
	double begin = now(), seconds, rate;
	unsigned long count = 0;

	if (argc != 4)
		return 2;
	seconds = atof(argv[1]);
	rate = atof(argv[2]);
	for (;;) {
		double passed = now() - begin;
		pid_t pid;

		if (passed >= seconds)
			break;
		if (count >= passed * rate) {
			usleep(1000);
			continue;
		}
		pid = vfork();
		if (pid == 0) {
			execve(argv[3], argv + 3, nothing);
			_exit(1);
		}
		if (pid < 0)
			return 1;
		waitpid(pid, NULL, 0);
		count++;
	}
	printf("%lu\n", count);
	return 0;
}
