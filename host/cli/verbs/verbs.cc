#include "host/cli/verbs/verbs.h"

namespace vmmhost::cli {

std::span<const Verb* const> allVerbs() {
  static constexpr const Verb* kVerbs[] = {
      &kRunVerb,      &kPsVerb,          &kInspectVerb, &kLogsVerb,    &kConsoleVerb,    &kVsockVerb, &kShutdownVerb,
      &kStopVerb,     &kPauseVerb,       &kResumeVerb,  &kResetVerb,   &kBalloonVerb,    &kWaitVerb,  &kRmVerb,
      &kBackendsVerb, &kConformanceVerb, &kDoctorVerb,  &kVersionVerb, &kCompletionVerb,
  };
  return kVerbs;
}

}  // namespace vmmhost::cli
