/*
 * What a session needs of libiscsi, and nothing else.
 *
 * One struct mp_session is one context, one connection, one login. It is used by one thread at a time,
 * whoever holds the helm (helm.rs), and never used again: after any failure it is closed, and the next
 * login has a new one. Callbacks only note what happened; the caller takes it out when libiscsi has
 * returned, so that nothing is called or freed from inside libiscsi.
 *
 * libiscsi 1.19 has no call that takes one command back safely: what is queued of its data goes on
 * pointing at the task, and the task at the caller's memory. So the only way back is mp_close, which
 * resets the connection and frees everything. The same danger lies in an answer that comes before all data
 * was sent: see mp_take.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#define TEXT_MAX 256
#define SENSE_MAX 96

/* Kept in step with shim_sys.rs. */
enum { CONNECTED = 1, LOGGED_IN = 2, REDIRECTED = 4, REFUSED = 8, LOGGED_OUT = 16, DROPPED = 32 };
enum { TO_NOWHERE = 0, TO_HOST = 1, TO_DEVICE = 2 };

struct mp_settings {
    const char *initiator, *target, *user, *secret, *target_user, *target_secret;
    uint32_t isid_number;
    uint16_t isid_qualifier;
    uint8_t header_digest;
    uint32_t transfer_max;
};

struct mp_end {
    uint64_t token;
    uint32_t status;
    uint32_t residual;
    uint8_t residual_kind;
    uint8_t sense_len;
    uint8_t sense[SENSE_MAX];
};

struct command {
    struct command *previous, *next; /* all of the session's */
    struct command *next_ended; /* of those to be taken; then of those that linger */
    struct mp_session *session;
    struct scsi_task *task;
    uint64_t token;
    uint64_t number; /* commands queued before it; when it lingers, before its end was taken */
    int status, ended, pieces;
    struct scsi_iovec iov[];
};

struct mp_session {
    struct iscsi_context *iscsi;
    struct command all; /* the list's head */
    struct command *first_ended, **last_ended;
    struct command *first_lingering, **last_lingering; /* ended, and something of them may be queued */
    uint64_t queued;
    uint32_t flags;
    unsigned lingering;
    void *nothing; /* transfer_max zero bytes */
    size_t transfer_max;
    char note[TEXT_MAX];
    char announced[TEXT_MAX]; /* what the target said that it will do, or wants done, with the session */
};

/* libiscsi's log has no argument of ours. It is called in the thread that holds the session. */
static __thread struct mp_session *current;

static void note(struct mp_session *session, const char *text)
{
    strncpy(session->note, text, TEXT_MAX - 1);
}

static int begins(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

static void log_message(int level, const char *text)
{
    (void)level;
    if (current == NULL)
        return;
    /* With its automatic reconnect off, this is how a lost connection shows when nothing is under way. */
    if (strstr(text, "reconnect") != NULL)
        current->flags |= DROPPED;
    else if (begins(text, "target requests ") || begins(text, "target will drop "))
        strncpy(current->announced, text, TEXT_MAX - 1);
    else
        note(current, text);
}

static void on_connect(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
    struct mp_session *session = private_data;
    (void)iscsi, (void)data;
    session->flags |= status == SCSI_STATUS_GOOD ? CONNECTED : DROPPED;
}

static void on_login(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
    struct mp_session *session = private_data;
    (void)data;
    if (status == SCSI_STATUS_GOOD)
        session->flags |= LOGGED_IN;
    else if (status == SCSI_STATUS_REDIRECT && iscsi_get_target_address(iscsi)[0] != 0)
        session->flags |= REDIRECTED;
    else
        session->flags |= status == SCSI_STATUS_CANCELLED ? DROPPED : REFUSED;
    if (!(session->flags & LOGGED_IN))
        note(session, iscsi_get_error(iscsi));
}

static void on_logout(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
    struct mp_session *session = private_data;
    (void)iscsi, (void)status, (void)data;
    session->flags |= LOGGED_OUT;
}

static void on_nop(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
    struct mp_session *session = private_data;
    (void)iscsi, (void)data;
    if (status == SCSI_STATUS_CANCELLED)
        session->flags |= DROPPED;
}

static void on_command(struct iscsi_context *iscsi, int status, void *data, void *private_data)
{
    struct command *command = private_data;
    struct mp_session *session = command->session;
    (void)iscsi, (void)data;
    if (command->ended)
        return;
    command->ended = 1;
    command->status = status;
    /* We never cancel one and set no timeout, so the connection is gone. */
    if (status == SCSI_STATUS_CANCELLED)
        session->flags |= DROPPED;
    *session->last_ended = command;
    session->last_ended = &command->next_ended;
}

static void free_command(struct command *command)
{
    command->previous->next = command->next;
    command->next->previous = command->previous;
    scsi_free_scsi_task(command->task);
    free(command);
}

struct mp_session *mp_open(const struct mp_settings *settings)
{
    struct mp_session *session = calloc(1, sizeof *session);
    if (session == NULL)
        return NULL;
    session->all.previous = session->all.next = &session->all;
    session->last_ended = &session->first_ended;
    session->last_lingering = &session->first_lingering;
    session->transfer_max = settings->transfer_max;
    session->nothing = mmap(NULL, settings->transfer_max, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                            -1, 0);
    if (session->nothing == MAP_FAILED) {
        free(session);
        return NULL;
    }
    session->iscsi = iscsi_create_context(settings->initiator);
    if (session->iscsi == NULL) {
        munmap(session->nothing, session->transfer_max);
        free(session);
        return NULL;
    }
    iscsi_set_log_level(session->iscsi, 2);
    iscsi_set_log_fn(session->iscsi, log_message);
    iscsi_set_noautoreconnect(session->iscsi, 1);
    iscsi_set_timeout(session->iscsi, 0);
    iscsi_set_targetname(session->iscsi, settings->target);
    iscsi_set_session_type(session->iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_isid_random(session->iscsi, settings->isid_number, settings->isid_qualifier);
    iscsi_set_header_digest(session->iscsi, settings->header_digest ? ISCSI_HEADER_DIGEST_CRC32C
                                                                    : ISCSI_HEADER_DIGEST_NONE);
    if (settings->user != NULL && settings->secret != NULL)
        iscsi_set_initiator_username_pwd(session->iscsi, settings->user, settings->secret);
    if (settings->target_user != NULL && settings->target_secret != NULL)
        iscsi_set_target_username_pwd(session->iscsi, settings->target_user, settings->target_secret);
    return session;
}

/* `portal` is numeric: a name would be looked up here, and block. */
int mp_connect(struct mp_session *session, const char *portal, uint32_t user_timeout_ms)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    const int one = 1, timeout = (int)user_timeout_ms, second = 1;
    current = session;
    int result = iscsi_connect_async(session->iscsi, portal, on_connect, session);
    current = NULL;
    if (result != 0) {
        note(session, iscsi_get_error(session->iscsi));
        return -1;
    }
    int fd = iscsi_get_fd(session->iscsi);
    /* A close resets the connection: the kernel must not go on sending writes that we have given up. */
    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) != 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* With the first, probes of silence end the connection when one is not acknowledged for so long, too. */
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &second, sizeof second);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &second, sizeof second);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return 0;
}

int mp_login(struct mp_session *session) { return iscsi_login_async(session->iscsi, on_login, session); }
int mp_logout(struct mp_session *session) { return iscsi_logout_async(session->iscsi, on_logout, session); }
int mp_nop(struct mp_session *session) { return iscsi_nop_out_async(session->iscsi, on_nop, NULL, 0, session); }
int mp_fd(struct mp_session *session) { return iscsi_get_fd(session->iscsi); }
int mp_events(struct mp_session *session) { return iscsi_which_events(session->iscsi); }
uint32_t mp_flags(struct mp_session *session) { return session->flags; }
/* What was announced is why the session ends, however that shows some calls later. */
const char *mp_note(struct mp_session *session)
{
    return session->announced[0] != 0 ? session->announced : session->note;
}
const char *mp_redirect(struct mp_session *session) { return iscsi_get_target_address(session->iscsi); }

/* PDUs that libiscsi keeps: because the target's window is closed, or the socket full. */
uint32_t mp_unsent(struct mp_session *session)
{
    int unsent = iscsi_out_queue_length(session->iscsi);
    /* The one that is partly sent is not in that queue; it shows in the events. */
    if (unsent == 0 && (iscsi_which_events(session->iscsi) & POLLOUT))
        unsent = 1;
    return unsent;
}

/* Frees what has lingered and ended before command `number` was queued. What is queued is sent by CmdSN: when that
 * command was sent, nothing of theirs was left. */
static void release(struct mp_session *session, uint64_t number)
{
    for (struct command *first; (first = session->first_lingering) != NULL && first->number <= number;) {
        session->first_lingering = first->next_ended;
        if (session->first_lingering == NULL)
            session->last_lingering = &session->first_lingering;
        free_command(first);
        session->lingering--;
    }
}

static void sweep(struct mp_session *session)
{
    if (session->lingering > 0 && mp_unsent(session) == 0)
        release(session, UINT64_MAX);
}

void mp_service(struct mp_session *session, int revents)
{
    session->note[0] = 0;
    current = session;
    if (iscsi_service(session->iscsi, revents) != 0)
        session->flags |= DROPPED;
    current = NULL;
    sweep(session);
}

/* Sends what is queued. `together`: what is small goes out with what comes after it, so that a batch of
 * commands, or a command and its data, is one segment and not many. */
void mp_send(struct mp_session *session, int together)
{
    const int on = 1, off = 0, fd = iscsi_get_fd(session->iscsi);
    if (together)
        setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
    mp_service(session, POLLOUT);
    if (together)
        setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off);
}

/*
 * Queues a command. 0, or -1 and nothing has happened. `iov` is copied; what it points to is used until
 * the command's end has been taken, or the session is closed.
 */
int mp_command(struct mp_session *session, uint16_t lun, const uint8_t *cdb, uint32_t cdb_len, uint32_t direction,
               const struct scsi_iovec *iov, uint32_t pieces, uint32_t length, uint64_t token)
{
    uint8_t bytes[16] = {0};
    const int directions[] = {SCSI_XFER_NONE, SCSI_XFER_READ, SCSI_XFER_WRITE};
    if (cdb_len > sizeof bytes || length > session->transfer_max || direction > TO_DEVICE)
        return -1;
    memcpy(bytes, cdb, cdb_len);
    /* One more than needed: a list that is not there would make libiscsi collect data by itself, without
     * a bound; one without pieces makes it refuse what nobody asked for. */
    struct command *command = calloc(1, sizeof *command + (pieces + 1) * sizeof command->iov[0]);
    if (command == NULL)
        return -1;
    command->task = scsi_create_task(cdb_len, bytes, directions[direction], length);
    if (command->task == NULL) {
        free(command);
        return -1;
    }
    command->session = session;
    command->token = token;
    command->number = session->queued;
    command->pieces = pieces;
    if (pieces > 0)
        memcpy(command->iov, iov, pieces * sizeof command->iov[0]);
    scsi_task_set_iov_in(command->task, command->iov, direction == TO_HOST ? (int)pieces : 0);
    scsi_task_set_iov_out(command->task, command->iov, direction == TO_DEVICE ? (int)pieces : 0);
    command->next = &session->all;
    command->previous = session->all.previous;
    command->previous->next = command->next->previous = command;
    /* Flat space addressing from 256 on (SAM-5 4.7.7.1); libiscsi puts the two bytes as they are. */
    int address = lun < 256 ? lun : lun | 0x4000;
    current = session;
    int result = iscsi_scsi_command_async(session->iscsi, address, command->task, on_command, NULL, command);
    current = NULL;
    if (result != 0) {
        free_command(command);
        return -1;
    }
    session->queued++;
    return 0;
}

/*
 * Takes the next command that has ended; 0 when there is none. From here on libiscsi does not touch the
 * caller's memory: a target that answers before it has all data leaves Data-Out PDUs queued, and those
 * find zeroes instead, which no target may store for a command that it has ended.
 */
int mp_take(struct mp_session *session, struct mp_end *end)
{
    struct command *command = session->first_ended;
    if (command == NULL)
        return 0;
    session->first_ended = command->next_ended;
    if (session->first_ended == NULL)
        session->last_ended = &session->first_ended;

    struct scsi_task *task = command->task;
    memset(end, 0, sizeof *end);
    end->token = command->token;
    end->status = command->status;
    end->residual_kind = task->residual_status;
    end->residual = task->residual > UINT32_MAX ? UINT32_MAX : (uint32_t)task->residual;
    if (command->status == SCSI_STATUS_CHECK_CONDITION && task->datain.data != NULL && task->datain.size > 2) {
        /* SenseLength, then the sense data (RFC 7143 11.4.7.2); what is behind it is padding. */
        size_t there = task->datain.size - 2;
        size_t length = (size_t)task->datain.data[0] << 8 | task->datain.data[1];
        length = length < there ? length : there;
        end->sense_len = length < SENSE_MAX ? length : SENSE_MAX;
        memcpy(end->sense, task->datain.data + 2, end->sense_len);
    }
    /* Where something always waits to be sent, only a later answer tells that what came before it is out. Other
     * numbers are libiscsi's own, of what the target may never have seen. */
    if (command->status >= 0 && command->status <= 0xff)
        release(session, command->number);
    /* Of reads too: the target may have asked for data that there are not. */
    if (mp_unsent(session) != 0) {
        for (int piece = 0; piece < command->pieces; piece++)
            command->iov[piece].iov_base = session->nothing;
        command->number = session->queued;
        command->next_ended = NULL;
        *session->last_lingering = command;
        session->last_lingering = &command->next_ended;
        session->lingering++;
    } else {
        free_command(command);
    }
    return 1;
}

/* Commands that have ended and are kept because of what may be queued of them: no more than were under way at
 * once, since nothing that was queued after the end of the first of them has been answered. */
uint32_t mp_lingering(struct mp_session *session) { return session->lingering; }

/* Resets the connection. The caller's memory is not touched from here on, and the session is gone. */
void mp_close(struct mp_session *session)
{
    /* Closes first, and then calls every callback that is left, as cancelled. */
    iscsi_destroy_context(session->iscsi);
    while (session->all.next != &session->all)
        free_command(session->all.next);
    munmap(session->nothing, session->transfer_max);
    free(session);
}
