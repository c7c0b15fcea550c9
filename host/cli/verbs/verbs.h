// The verbs of the vmmhost command, a file each.
#pragma once

#include <span>

#include "host/cli/base/verb.h"

namespace vmmhost::cli {

extern const Verb kRunVerb;
extern const Verb kPsVerb;
extern const Verb kInspectVerb;
extern const Verb kLogsVerb;
extern const Verb kConsoleVerb;
extern const Verb kVsockVerb;
extern const Verb kShutdownVerb;
extern const Verb kStopVerb;
extern const Verb kPauseVerb;
extern const Verb kResumeVerb;
extern const Verb kResetVerb;
extern const Verb kBalloonVerb;
extern const Verb kWaitVerb;
extern const Verb kRmVerb;
extern const Verb kBackendsVerb;
extern const Verb kConformanceVerb;
extern const Verb kDoctorVerb;
extern const Verb kVersionVerb;
extern const Verb kCompletionVerb;

// All of them, in the order in which help shows them.
std::span<const Verb* const> allVerbs();

}  // namespace vmmhost::cli
