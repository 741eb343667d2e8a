/* proc_file: numbers in the text files of the kernel, as /proc/meminfo and the files of control groups. */
#ifndef ZGEN_BASE_PROC_FILE_H
#define ZGEN_BASE_PROC_FILE_H

/* The number behind a label at the begin of a line, of the first line where the label is ""; -1 where the file, the
 * label or a number behind it is missing ("max" is no number). */
double proc_number(const char *path, const char *label);

#endif
