/* A shared object that is no plugin. */
int vmmhost_test_nothing(void);
int vmmhost_test_nothing(void) {
  return 0;
}
