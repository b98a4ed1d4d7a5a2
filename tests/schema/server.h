/* server.h - a PostgreSQL of our own for one test program.
 *
 * server_start makes a data folder and a socket in a fresh folder below /tmp (short: a socket's path has 107 bytes),
 * runs initdb and postgres (as user postgres when we are root, since initdb refuses root), and fills the template
 * database with schema/postgres and helpers.sql. The folder's name goes into KILN_SCHEMA_SERVER, where the test
 * processes, which are others, find it. A guardian process stops the server and removes the folder when the program
 * ends, however it ends. */
#ifndef KILN_TESTS_SCHEMA_SERVER_H
#define KILN_TESTS_SCHEMA_SERVER_H

struct server;

struct server *server_start(void);  /* NULL: said on stderr why not */
void server_stop(struct server *s); /* returns when it has stopped; NULL is fine */

#endif
