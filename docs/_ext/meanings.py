# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the metrics and the keys of /diagnostics mean; the build holds them against the code."""

METRICS = {
    'actor_loss': 'clipped surrogate of an on-policy rule, less is better',
    'actor_grad_norm': "norm of the actor's gradient",
    'add_on_failures': 'drawn transitions whose add-on reward was no finite number, and counted as '
    '0',
    'add_on_weight': 'factor on the add-on rewards that are learned from',
    'alpha': 'entropy temperature',
    'beta': 'share of Q_R that counts in the choice among proposals (q_remix)',
    'base_preferred_share': "share of states in which a critic sees no advantage of the actor's "
    'mean over the base action',
    'clipped_share': 'share of rows whose probability has left the clip range in a phase',
    'cql_loss': 'conservative term of Cal-QL, before its weight',
    'critic_dormant_share': "share of the critics' hidden units that are dormant: active below "
    "2.5 % of their layer's average",
    'critic_grad_norm': 'largest gradient norm of a critic, before clipping',
    'critic_loss': 'squared error of the critics, summed over them',
    'critic_rank': "share of the first critic's feature directions that hold 99 % of the sum of "
    'singular values',
    'demonstrations': 'transitions in the demonstration buffer',
    'entropy': 'entropy of the unscaled residual [nat]',
    'gamma': 'discount per decision in use',
    'guard_base_share': 'share of the episodes that are not random in which the robot is to '
    'have no residual',
    'guard_statistic': "doubt that the residual is as good as its base: the guard's sum; a trial "
    'begins at 3.35',
    'importance_deviation': 'mean absolute difference to 1 of the probability of actions by the '
    'present actor, relative to that by the actor that drew them',
    'imitation_loss': 'mean squared distance of the supervised residual to what was shown',
    'kl_to_prior': 'KL divergence of the actor from the base policy, of drawn actions; the '
    'negative entropy if the base counts for nothing',
    'learned_reward': 'mean of the reward that is learned from, without prior and entropy, on a '
    'batch',
    'normalizer_transitions': 'transitions that the observation normaliser was fitted on',
    'prior_weight': "omega' in use: what log pi(a|s) of the base policy is worth",
    'proposal_chosen_share': 'share of states in which another proposal of the base than its '
    'action is chosen (choose_and_edit)',
    'q_base': 'value of the base action, mean over a batch and the critics',
    'q_executed': 'value of the executed action, on the same states',
    'q_policy': "value of the actor's mean, on the same states",
    'replay_*_share': 'share of the transitions in the replay by source: base, residual, '
    'takeover, random',
    'residual_magnitude': "mean size of the actor's mean, in units of the bound",
    'residual_saturation': "share of the actor's mean beyond 95 % of the bound",
    'rollout_unknown_rows': 'decisions of the rollout that were left out, since their actor is not '
    'known any more',
    'td_error': 'mean absolute error of the critics against their target',
    'update_kl': 'KL divergence of the actor from the one before the phase of updates',
    'value_mean': 'mean of the targets of the value function',
    'value_std': 'their standard deviation',
    'update_ratio': 'updates per transition since the warm-up',
}
"""Keys of `Updates.metrics`."""

RUN = {
    'run/updates': 'updates taken while online',
    'run/rollbacks': 'times the guard or an operator has rolled back',
    'run/takeovers': 'times an operator has taken over',
    'run/operator_steps': 'control steps of the decisions in which an operator commanded',
    'run/success_recent': 'success of the latest 50 labelled episodes that rate the learner',
    'run/return_basic': "with an add-on: mean return of the task's own reward, over the latest 50 "
    'training episodes',
    'run/return_add_on': 'the same of the add-on',
    'run/return_total': 'the same of both together',
}
"""What TensorBoard has beside them."""

DIAGNOSTICS = {
    'policy_node': {
        'active': 'the lifecycle state is active',
        'episode': 'number of the episode, -1 before the first',
        'epoch': 'epoch of the actor in use, 0 before the first',
        'sequence': 'sequence of the actor in use, -1 before the first',
        'residual_on': 'decisions take a residual: an actor is there and allowed, and the switch '
        'is on',
        'in_episode': 'an episode is in progress; else it waits for `~/start_episode` (real time)',
        'residual_switch': "the operator's switch (`~/set_residual`)",
        'takeover': 'an operator has the robot',
        'add_on': 'what the robot is asked for beside its task, as YAML',
        'add_on_weight': 'factor on it; 0 is the base policy alone',
        'add_on_reward': 'its reward in the episode, of weight 1',
        'add_on_failures': 'decisions whose add-on reward was no finite number',
        'held': 'real time: an operator holds the robot (`~/hold`)',
        'stops': 'real time: what the stop inputs forbid the robot to move for',
        'waits_to_start': 'real time: an episode waits, its first command is far from the robot',
        'preparing': 'real time: what is done before the next episode; empty if nothing is left',
        'weights_accepted': 'weight messages accepted',
        'weights_refused_*': 'weight messages refused, by reason',
        'first_chunk_holds': 'control steps held until the first chunk of an episode, or after a '
        'pause, was there',
        'late_chunks': 'control steps held because a later chunk was not there in time',
        'prefetch_steps': 'control steps before its first use at which a chunk is requested; '
        '`auto` follows inference',
        'chunks_*': 'with `base_policy: topic`: chunks received, and refused by reason',
        'residuals_not_finite': "decisions in which the actor's output was not finite",
        'residuals_refused': 'decisions in which the critics chose the base action',
        'proposals_chosen': 'decisions that took another proposal of the base than its action',
        'plans_late': 'decisions whose plan was not ready: the base acted alone',
        'clamped': 'commands changed by the position limits',
        'slew_limited': 'commands changed by the slew limit',
        'workspace_limited': 'commands cut short at the border of the workspace',
        'self_collision_limited': 'commands cut short because links would come too near',
        'ticks': 'control steps of episodes that sent a command',
        'operator_ticks': "those of which the command was an operator's",
        'takeovers': 'how often an operator has taken over',
        'robot_minutes': 'time of `ticks` [min]',
        'operator_minutes': 'time of `operator_ticks` [min]',
        'overruns': 'control steps that began more than 1.5 periods after the one before',
        'missed_periods': 'control steps that began more than 2 periods after the one before',
        'holds': 'control steps in which the robot was held',
        'transitions': 'transitions published',
        'refused_starts': 'episodes not begun: the first command was far from the robot',
        'refused_observations': 'observations refused',
        'refused_feedback': 'messages on `step_feedback` refused',
        'refused_takeovers': 'takeover commands refused',
        'refused_transitions': 'transitions that could not be sent',
    },
    'learner_node': {
        'active': 'the lifecycle state is active',
        'paused': 'learning is paused (`~/pause`)',
        'queue': 'messages that wait to be worked on',
        'malformed': 'transitions dropped: unreadable, or with a number that is not plausible',
        'other_learners': 'other publishers of the weights; there must be none',
        'missing': 'decisions that were made and never arrived',
        'transitions': 'transitions received',
        'phase': '`warmup`, `policy_warmup` or `online`',
        'epoch': "the learner's epoch",
        'sequence': 'sequence of the latest weight message',
        'control_steps': 'control steps received',
        'episodes': 'finished episodes',
        'residual_episodes': 'finished episodes that rate the residual',
        'residual_outcomes': 'outcomes of the latest 50 of these, 1 is success',
        'success_recent': 'success of the latest 50 labelled episodes, those with a takeover as '
        'failures; -1 before the first',
        'add_on': 'what is learned beside the task, as YAML; empty is that of the preset',
        'add_on_weight': 'factor on it in what is learned',
        'takeovers': 'how often an operator has taken over',
        'operator_steps': 'control steps of the decisions in which an operator commanded',
        'updates': 'updates taken while online',
        'pretraining_updates': 'updates taken at the end of the warm-up',
        'dropped_updates': 'updates that were due and will never be taken',
        'rollbacks': 'times the guard or an operator has rolled back',
        'guard_watches': '`success`; `return` while no episode was ever labelled; `nothing` if off',
        'recoveries': 'times the networks were not finite and the latest finite ones took over',
        'transitions_per_s': 'transitions per second since the last message',
        'updates_per_s': 'updates per second since the last message',
        '*/*': 'transitions, malformed and missing of one robot of a fleet',
    },
    'reward_node': {
        'active': 'the lifecycle state is active',
        'asked': 'observations judged',
        'answered': 'observations with an answer',
        'successes': 'successes reported',
        'refused_observations': 'observations refused',
        'add_on_reward': 'add-on return of the episode so far, or of the last one',
        'add_on_failures': 'decisions whose add-on reward was no number, or that were malformed',
    },
    'takeover_node': {
        'active': 'the lifecycle state is active',
        'takeover_state': '`off`: the policy has the robot; `on`: the operator; `lost`: he is not '
        'heard, and the robot stands still',
        'takeovers': 'how often the operator has taken over',
        'refused_inputs': 'messages of the input refused',
    },
    'recorder_node': {'messages': 'messages recorded'},
    'mujoco_sim_node': {
        'control_steps': 'control steps simulated',
        'episode': 'number of the episode',
        'steps_per_s': 'control steps per second since the last message',
        'mean_steps_per_s': 'control steps per second since the first one',
    },
}
"""Keys on /diagnostics, by node."""

STAGES = {
    'account': 'accounting for the last step',
    'command': 'residual, limits and publication',
    'reaction': 'from the start of a control step to its command, with reading the observations',
    'tick': 'the whole control step, with the transition that follows the command',
    'actor': "the actor's part of a decision",
    'inference': 'one inference of the base policy',
    'plan': 'one plan of a robot policy that plans, in a thread of its own',
}
"""Durations that policy_node measures in real time."""

STATISTICS = {
    'p50_us': 'median [us]',
    'p95_us': '95th percentile [us]',
    'p99_us': '99th percentile [us]',
    'max_us': 'the longest [us]',
}
"""What is said of each."""
