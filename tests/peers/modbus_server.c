/* A Modbus server made of libmodbus, so that fieldspool is tested against a peer that nobody here wrote.
 *
 *   modbus_server tcp              listens on a free port of 127.0.0.1 and prints "port N"
 *   modbus_server rtu PATH SPEED   answers as unit 1 on a serial port (a pty), prints "ready"
 *
 * Commands on standard input, one a line, each answered by one line:
 *   set TABLE UNIT ADDRESS VALUE   TABLE: holding, input, coil, discrete      -> ok
 *   silence UNIT | answer UNIT     the unit stops or begins to answer         -> ok
 *   requests UNIT                  requests seen for the unit so far          -> N
 *   tick                           from now on, input register 100 counts requests of its unit -> ok
 * It ends at the end of its input. Addresses 0 to 65535 exist in every table of units 0 to 255.
 */
#include <errno.h>
#include <modbus/modbus.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

#define UNITS 256
#define CLIENTS 64

static modbus_mapping_t *mapping[UNITS];
static int silent[UNITS], tick;
static unsigned long requests[UNITS];

static modbus_mapping_t *unit(int id)
{
    if (!mapping[id])
        mapping[id] = modbus_mapping_new(65536, 65536, 65536, 65536);
    if (!mapping[id]) {
        perror("modbus_mapping_new");
        exit(1);
    }
    return mapping[id];
}

static void command(char *line)
{
    char table[16];
    unsigned id, address, value;

    if (sscanf(line, "set %15s %u %u %u", table, &id, &address, &value) == 4 && id < UNITS && address < 65536) {
        modbus_mapping_t *m = unit(id);
        if (!strcmp(table, "holding"))
            m->tab_registers[address] = value;
        else if (!strcmp(table, "input"))
            m->tab_input_registers[address] = value;
        else if (!strcmp(table, "coil"))
            m->tab_bits[address] = value != 0;
        else if (!strcmp(table, "discrete"))
            m->tab_input_bits[address] = value != 0;
        puts("ok");
    } else if (sscanf(line, "silence %u", &id) == 1 && id < UNITS) {
        silent[id] = 1;
        puts("ok");
    } else if (sscanf(line, "answer %u", &id) == 1 && id < UNITS) {
        silent[id] = 0;
        puts("ok");
    } else if (sscanf(line, "requests %u", &id) == 1 && id < UNITS) {
        printf("%lu\n", requests[id]);
    } else if (!strncmp(line, "tick", 4)) {
        tick = 1;
        puts("ok");
    } else {
        puts("what?");
    }
    fflush(stdout);
}

/* Reads what is there on standard input and obeys whole lines. 0 at its end. */
static int obey(void)
{
    static char buffer[4096];
    static size_t used;
    ssize_t got = read(0, buffer + used, sizeof buffer - 1 - used);
    char *newline;

    if (got <= 0)
        return 0;
    used += got;
    buffer[used] = 0;
    while ((newline = strchr(buffer, '\n'))) {
        *newline = 0;
        command(buffer);
        used -= newline + 1 - buffer;
        memmove(buffer, newline + 1, used + 1);
    }
    return 1;
}

/* Answers one request. 0 when the client is gone. */
static int answer(modbus_t *ctx, int header)
{
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    int length = modbus_receive(ctx, query);
    int id;

    if (length == 0)
        return 1; /* for another unit (RTU) */
    if (length < 0)
        return errno == EMBBADCRC || errno == ETIMEDOUT || errno == EMBBADDATA;
    id = query[header - 1];
    requests[id]++;
    if (silent[id])
        return 1;
    if (tick)
        unit(id)->tab_input_registers[100] = requests[id];
    return modbus_reply(ctx, query, length, unit(id)) >= 0;
}

static int serve_rtu(const char *path, int speed)
{
    modbus_t *ctx = modbus_new_rtu(path, speed, 'N', 8, 1);
    struct pollfd fds[2];

    if (!ctx || modbus_set_slave(ctx, 1) < 0 || modbus_connect(ctx) < 0) {
        perror("modbus_connect");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        fds[0] = (struct pollfd){ .fd = 0, .events = POLLIN };
        fds[1] = (struct pollfd){ .fd = modbus_get_socket(ctx), .events = POLLIN };
        if (poll(fds, 2, -1) < 0)
            return 1;
        if (fds[0].revents && !obey())
            return 0;
        if (fds[1].revents && !answer(ctx, 1))
            return 1;
    }
}

static int serve_tcp(void)
{
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), clients[CLIENTS], count = 0;
    struct pollfd fds[2 + CLIENTS];

    if (!ctx || listener < 0 || bind(listener, (struct sockaddr *)&here, size) < 0 || listen(listener, 16) < 0 ||
        getsockname(listener, (struct sockaddr *)&here, &size) < 0) {
        perror("listen");
        return 1;
    }
    printf("port %d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        fds[0] = (struct pollfd){ .fd = 0, .events = POLLIN };
        fds[1] = (struct pollfd){ .fd = listener, .events = POLLIN };
        for (int i = 0; i < count; i++)
            fds[2 + i] = (struct pollfd){ .fd = clients[i], .events = POLLIN };
        if (poll(fds, 2 + count, -1) < 0)
            return 1;
        if (fds[0].revents && !obey())
            return 0;
        for (int i = count - 1; i >= 0; i--) {
            if (!fds[2 + i].revents)
                continue;
            modbus_set_socket(ctx, clients[i]);
            if (!answer(ctx, 7)) {
                close(clients[i]);
                clients[i] = clients[--count];
            }
        }
        if (fds[1].revents && count < CLIENTS) {
            int client = accept(listener, NULL, NULL);
            if (client >= 0)
                clients[count++] = client;
        }
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "tcp"))
        return serve_tcp();
    if (argc == 4 && !strcmp(argv[1], "rtu"))
        return serve_rtu(argv[2], atoi(argv[3]));
    fprintf(stderr, "usage: modbus_server tcp | rtu PATH SPEED\n");
    return 64;
}
