// The look of vmmhost doctor at VMs that run already: a package may have been replaced since they were started.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "host/base/build_info.h"
#include "host/base/text.h"
#include "host/cli/base/vm_access.h"
#include "host/cli/verbs/doctor.h"
#include "host/client/control_client.h"
#include "host/runtime/directories.h"

namespace vmmhost::cli {

namespace {

using client::ControlClient;

struct Question {
  std::string name;
  std::unique_ptr<ControlClient> client;  // null: it took no connection
};

std::vector<Question> connectToAll(kj::AsyncIoContext& io, const runtime::Directories& directories) {
  std::vector<Question> questions;
  for (const runtime::Entry& entry : runtime::list(directories, runtime::Kind::kVm)) {
    if (!entry.alive || entry.isChanging) {  // what is made or removed just now is of no old build
      continue;
    }
    Question question{entry.name.text, nullptr};
    try {
      question.client =
          std::make_unique<ControlClient>(io, runtime::connectControl(directories, entry.name), question.name);
    } catch (const Error&) {
      // It is starting, ending, or its listen queue is full.
    }
    questions.push_back(std::move(question));
  }
  return questions;
}

const char* statusName(VmBuild::Status status) {
  switch (status) {
    case VmBuild::Status::kOlder:
      return "older";
    case VmBuild::Status::kOther:
      return "other";
    default:
      return "notAnswering";
  }
}

std::string detailOf(const VmBuild& vm) {
  if (vm.status == VmBuild::Status::kNotAnswering) {
    return "its supervisor does not answer, so that its build is not known";
  }
  const std::string detail = std::string("its supervisor is of an") +
                             (vm.status == VmBuild::Status::kOlder ? " older build" : "other build") +
                             (vm.build.empty() ? " that does not tell its version" : ", " + vm.build);
  return detail + ", and goes on working";
}

std::string fixOf(const VmBuild& vm) {
  return vm.status == VmBuild::Status::kNotAnswering ? "try again; `vmmhost logs --vmm " + vm.name + "` may tell why"
                                                     : "restart the VM when convenient";
}

}  // namespace

std::vector<VmBuild> vmsOfOtherBuilds(kj::AsyncIoContext& io, const runtime::Directories& directories,
                                      std::chrono::milliseconds limit) {
  std::vector<Question> questions = connectToAll(io, directories);
  kj::Vector<kj::Promise<void>> answers;
  for (const Question& question : questions) {
    if (question.client) {
      // One that speaks another major version has told its build all the same.
      answers.add(question.client->hello(limit).catch_([](kj::Exception&&) {}));
    }
  }
  client::await(io, kj::joinPromises(answers.releaseAsArray()));
  std::vector<VmBuild> found;
  for (const Question& question : questions) {
    const auto build = question.client ? question.client->supervisorBuild() : std::nullopt;
    const BuildAge age = build ? compareBuilds(*build) : BuildAge::kOther;
    if (build ? age == BuildAge::kSame : hasEnded(directories, question.name)) {
      continue;
    }
    found.push_back({question.name,
                     !build                    ? VmBuild::Status::kNotAnswering
                     : age == BuildAge::kOlder ? VmBuild::Status::kOlder
                                               : VmBuild::Status::kOther,
                     build.value_or("")});
  }
  return found;
}

std::string textOf(const std::vector<VmBuild>& vms) {
  std::string text;
  for (const VmBuild& vm : vms) {
    text += "warning  VM " + printable(vm.name, 64) + ": " + detailOf(vm) + ": " + fixOf(vm) + '\n';
  }
  return text;
}

void writeVms(config::JsonWriter& json, const std::vector<VmBuild>& vms) {
  json.beginArray();
  for (const VmBuild& vm : vms) {
    json.beginObject()
        .member("name", vm.name)
        .member("status", statusName(vm.status))
        .member("supervisorBuild", vm.build)
        .member("detail", detailOf(vm))
        .member("fix", fixOf(vm))
        .endObject();
  }
  json.endArray();
}

}  // namespace vmmhost::cli
