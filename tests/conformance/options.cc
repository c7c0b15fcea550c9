#include "tests/conformance/options.h"

#include <getopt.h>

#include <charconv>

#include "host/base/text.h"
#include "vmmhost/error.h"

namespace vmmhost::conformance {

namespace {

constexpr unsigned kMaxJobs = 64;

enum Option { kPlugin = 256, kBackend, kCase, kKernel, kInitrd, kJson, kList, kHelp, kJobs, kChild, kRefusal, kFacts };

constexpr option kOptions[] = {
    {"plugin", required_argument, nullptr, kPlugin},
    {"backend", required_argument, nullptr, kBackend},
    {"case", required_argument, nullptr, kCase},
    {"kernel", required_argument, nullptr, kKernel},
    {"initrd", required_argument, nullptr, kInitrd},
    {"json", no_argument, nullptr, kJson},
    {"list", no_argument, nullptr, kList},
    {"help", no_argument, nullptr, kHelp},
    {"jobs", required_argument, nullptr, kJobs},
    {"child-folder", required_argument, nullptr, kChild},
    {"refusal-of", required_argument, nullptr, kRefusal},
    {"capabilities", required_argument, nullptr, kFacts},
    {nullptr, 0, nullptr, 0},
};

[[noreturn]] void wrong(const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, "`vmmhost conformance --help` tells what there is");
}

}  // namespace

const char kUsage[] =
    "vmmhost-conformance --backend NAME | --plugin FILE [--case PATTERN]... [--kernel FILE --initrd FILE]\n"
    "                    [--jobs N] [--list] [--json]\n"
    "Started by `vmmhost conformance`, whose --help tells what it all means.\n";

Options parseOptions(int argc, char** argv) {
  Options options;
  ::optind = 1;
  ::opterr = 0;
  for (int found; (found = ::getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    const std::string value = ::optarg == nullptr ? "" : ::optarg;
    switch (found) {
      case kPlugin:
        options.plugin = value;
        break;
      case kBackend:
        options.backend = value;
        break;
      case kCase:
        options.patterns.push_back(value);
        break;
      case kKernel:
        options.kernel = value;
        break;
      case kInitrd:
        options.initrd = value;
        break;
      case kJson:
        options.json = true;
        break;
      case kList:
        options.list = true;
        break;
      case kHelp:
        options.help = true;
        break;
      case kJobs: {
        const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), options.jobs);
        if (error != std::errc() || end != value.data() + value.size() || options.jobs == 0 ||
            options.jobs > kMaxJobs) {
          wrong("--jobs " + inQuotes(value) + ": expected a number from 1 to " + std::to_string(kMaxJobs));
        }
        break;
      }
      case kChild:
        options.childFolder = value;
        break;
      case kRefusal:
        options.refusalOf = value;
        break;
      case kFacts:
        options.capabilities = value;
        break;
      default:
        wrong("not understood: " + inQuotes(argv[::optind - 1]));
    }
  }
  if (::optind < argc) {
    wrong("not understood: " + inQuotes(argv[::optind]));
  }
  if (options.help || options.list) {
    return options;
  }
  if (options.plugin.empty() == options.backend.empty()) {
    wrong("which backend? Expected --backend NAME or --plugin FILE, one of them");
  }
  if (options.kernel.empty() != options.initrd.empty()) {
    wrong("--kernel and --initrd are given together");
  }
  return options;
}

std::vector<std::string> childArguments(const Options& options, const std::string& plugin, const std::string& name,
                                        const std::string& folder, const std::string& refusalOf,
                                        const std::vector<std::string>& capabilities) {
  std::string joined;
  for (const std::string& capability : capabilities) {
    joined += (joined.empty() ? "" : ",") + capability;
  }
  std::vector<std::string> arguments = {"--plugin",       plugin, "--case",         name,
                                        "--child-folder", folder, "--capabilities", joined};
  if (!refusalOf.empty()) {
    arguments.insert(arguments.end(), {"--refusal-of", refusalOf});
  }
  if (!options.kernel.empty()) {
    arguments.insert(arguments.end(), {"--kernel", options.kernel, "--initrd", options.initrd});
  }
  return arguments;
}

std::vector<std::string> splitWords(const std::string& text, char separator) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    if (end > begin) {
      words.push_back(text.substr(begin, end - begin));
    }
    begin = end + 1;
  }
  return words;
}

}  // namespace vmmhost::conformance
