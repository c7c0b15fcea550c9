#include "tests/conformance/case.h"
namespace vmmhost::conformance {
void addExitCases(Cases&) {
}
void addConfigCases(Cases&) {
}
void addFieldCases(Cases&) {
}
void addInfoCases(Cases&) {
}
void addSeveralCases(Cases&) {
}
void addClientCases(Cases&) {
}
void addLinuxCases(Cases&) {
}
}  // namespace vmmhost::conformance
