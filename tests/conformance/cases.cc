#include "tests/conformance/case.h"

namespace vmmhost::conformance {

Cases allCases() {
  Cases cases;
  addLifecycleCases(cases);
  addEventCases(cases);
  addErrorCases(cases);
  addDeadlineCases(cases);
  addCancelCases(cases);
  addConsoleCases(cases);
  addPauseCases(cases);
  addExitCases(cases);
  addConfigCases(cases);
  addFieldCases(cases);
  addInfoCases(cases);
  addSeveralCases(cases);
  addVsockCases(cases);
  addDeviceCases(cases);
  addClientCases(cases);
  addLinuxCases(cases);
  return cases;
}

}  // namespace vmmhost::conformance
