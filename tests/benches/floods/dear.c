/* dear MAPPINGS DESCRIPTORS: makes both, says `.`, and waits until standard
 * input closes. No two mappings can become one: each is of the same page of
 * the program. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int mappings, descriptors, self;
	char rest;

	if (argc != 3)
		return 2;
	mappings = atoi(argv[1]);
	descriptors = atoi(argv[2]);
	self = open("/proc/self/exe", O_RDONLY);
	if (self < 0)
		return 1;
	while (mappings-- > 0)
		if (mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, self, 0) == MAP_FAILED)
			return 1;
	while (descriptors-- > 0)
		if (dup(self) < 0)
			return 1;
	if (write(1, ".", 1) != 1)
		return 1;
	while (read(0, &rest, 1) > 0)
		;
	return 0;
}
