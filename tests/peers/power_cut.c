/* Cuts the power of a mounted ext4, as far as the file system can tell: from now on nothing reaches the device, and what
 * was not synced before never does. For tests, on a loop device of their own.
 *
 *   power_cut FOLDER     FS_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH on the file system that FOLDER is on; needs root
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define FS_IOC_SHUTDOWN _IOR('X', 125, uint32_t)

int main(int argc, char **argv)
{
    uint32_t no_flush = 2;
    int folder = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;

    if (folder < 0 || ioctl(folder, FS_IOC_SHUTDOWN, &no_flush) < 0) {
        perror("power_cut");
        return 1;
    }
    return 0;
}
